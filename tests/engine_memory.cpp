// SPDX-License-Identifier: MIT
// The engine over shapes of every kind, above all M * K < N, and every kernel that this CPU can
// run, for AddressSanitizer.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "gemm.h"
#include "linear.h"

using namespace acl_qlinear;

namespace {

// As many threads as it says, one after the other.
class SerialScheduler final : public arm_compute::IScheduler {
public:
    explicit SerialScheduler(unsigned int threads) : threads_(threads) {}
    unsigned int num_threads() const override { return threads_; }
    void set_num_threads(unsigned int) override {}
    void schedule(arm_compute::ICPPKernel*, const Hints&) override { std::abort(); }
    void schedule_op(arm_compute::ICPPKernel*, const Hints&, const arm_compute::Window&,
                     arm_compute::ITensorPack&) override {
        std::abort();
    }

protected:
    void run_workloads(std::vector<Workload>& workloads) override {
        for (auto& workload : workloads) {
            workload(arm_compute::ThreadInfo());
        }
    }

private:
    unsigned int threads_;
};

// `count` bytes, followed by a page that can be neither read nor written: it catches what
// AddressSanitizer does not see, ACL's assembly.
class Bytes {
public:
    explicit Bytes(size_t count, size_t alignment = 1) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
        const size_t pages = (count + alignment + page_ - 1) / page_;
        size_  = (pages + 1) * page_;
        block_ = static_cast<char*>(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        if (block_ == MAP_FAILED || mprotect(block_ + pages * page_, page_, PROT_NONE)) {
            std::perror("mmap");
            std::abort();
        }
        start = block_ + (pages * page_ - count) / alignment * alignment;
        for (size_t i = 0; i < count; ++i) {
            start[i] = static_cast<char>(i * 37 % 251);
        }
    }
    ~Bytes() { munmap(block_, size_); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;

    char* start;

private:
    size_t page_, size_;
    char*  block_;
};

int run_shape(int64_t M, int64_t K, int64_t N, unsigned int threads, bool per_channel) {
    SerialScheduler scheduler(threads);
    const Bytes weight(static_cast<size_t>(N * K));
    const std::vector<double> scales(static_cast<size_t>(per_channel ? N : 1), 0.01);
    const std::vector<float> bias(static_cast<size_t>(N), 0.5f);
    const std::vector<int32_t> zero_points(scales.size(), 3);
    WeightSource source{};
    source.values      = reinterpret_cast<const int8_t*>(weight.start);
    source.N           = N;
    source.K           = K;
    source.scales      = scales.data();
    source.scale_count = static_cast<int64_t>(scales.size());
    source.bias        = bias.data();
    source.zero_points = per_channel ? zero_points.data() : nullptr;

    std::unique_ptr<Bytes> block;
    size_t size = 0;
    pack(source, [&](size_t bytes) {
        block = std::make_unique<Bytes>(size = bytes, 64);
        return block->start;
    });
    const PackedWeight packed = view_packed(block->start, size);

    std::vector<int8_t> unpacked(static_cast<size_t>(N * K));
    unpack(packed, unpacked.data());
    if (!std::equal(unpacked.begin(), unpacked.end(), source.values)) {
        std::printf("unpacked weights differ: M=%ld K=%ld N=%ld\n", M, K, N);
        return 1;
    }
    const DType types[] = {DType::s8, DType::u8, DType::f32, DType::bf16};
    for (const DType x_type : types) {
        for (const DType y_type : types) {
            const auto bytes = [](int64_t count, DType type) { return static_cast<size_t>(count) * size_of(type); };
            // Bytes of any value: as floats, some are infinite and some NaN.
            const Bytes x(bytes(M * K, x_type)), y(bytes(M * N, y_type));
            if (x_type == DType::f32 || x_type == DType::bf16) {
                range_of(x_type, x.start, static_cast<size_t>(M * K));
            }
            LinearCall call{};
            call.M      = M;
            call.x_type = x_type;
            call.x      = x.start;
            call.input  = {0.02, 7};
            call.y_type = y_type;
            call.y      = y.start;
            call.output = {0.3, 5};
            call.activation = y_type == DType::f32 ? Activation::gelu : Activation::none;
            linear(call, packed, scheduler);
        }
    }
    return 0;
}

// A family of kernels against sums one by one, whether or not ACL would choose it here.
int run_family(const char* name, int64_t M, int64_t K, int64_t N) {
    const KernelFamily& family = *find_family(name);
    const Bytes x(static_cast<size_t>(M * K)), weight(static_cast<size_t>(N * K));
    const auto* const values = reinterpret_cast<const int8_t*>(weight.start);
    const Bytes packed(family.packed_bytes(N, K), 64);
    std::fill_n(packed.start, family.packed_bytes(N, K), 0);
    pack_weights(family, N, K, values, reinterpret_cast<int8_t*>(packed.start));
    const PackedRows rows(family, DType::s8, x.start, M, K);
    const int64_t panels = (N + family.panel_columns() - 1) / family.panel_columns();
    const Products p = rows.multiply(reinterpret_cast<const int8_t*>(packed.start), panels);
    for (int64_t m = 0; m < M; ++m) {
        for (int64_t n = 0; n < N; ++n) {
            int32_t sum = 0;
            for (int64_t k = 0; k < K; ++k) {
                sum += static_cast<int8_t>(x.start[m * K + k]) * values[n * K + k];
            }
            const int64_t panel = n / p.panel_columns * p.rows * p.panel_columns;
            if (p.values[panel + m * p.panel_columns + n % p.panel_columns] != sum) {
                std::printf("%s: M=%ld K=%ld N=%ld differs at %ld, %ld\n", name, M, K, N, m, n);
                return 1;
            }
        }
    }
    return 0;
}

int run_families() {
    const char* const names[] = {"sve_interleaved_s8s32_mmla_8x3VL", "sve_interleaved_s8s32_dot_8x3VL",
                                 "a64_interleaved_s8s32_mmla_8x12", "a64_gemm_s8_8x12", "a64_gemm_s8_4x4"};
    int failures = 0, count = 0;
    for (const char* const name : names) {
        if (!find_family(name)->runs_here()) {
            continue;
        }
        for (int64_t M = 1; M <= 19; ++M) {
            for (const int64_t K : {1, 8, 31, 1500, 3000}) {
                failures += run_family(name, M, K, 30);
            }
        }
        ++count;
    }
    std::printf("%d families of kernels, %d failures\n", count, failures);
    return failures;
}

} // namespace

int main() {
    const int64_t shapes[][3] = {{1, 768, 3072}, {1, 64, 512},  {1, 1, 1},    {1, 3, 17},    {2, 5, 33},   {7, 13, 300},
                                 {1, 1, 1000},   {3, 768, 5},   {9, 31, 63},  {97, 40, 65},  {200, 17, 48}, {130, 5, 1031}};
    int failures = 0;
    for (const auto& [M, K, N] : shapes) {
        for (const unsigned int threads : {1u, 4u}) {
            for (const bool per_channel : {false, true}) {
                failures += run_shape(M, K, N, threads, per_channel);
            }
        }
    }
    std::printf("%zu shapes, %d failures\n", sizeof shapes / sizeof shapes[0], failures);
    failures += run_families();
    return failures != 0;
}
