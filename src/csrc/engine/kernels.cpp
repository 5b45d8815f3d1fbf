#include "kernels.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include <sys/auxv.h>
#include <sys/prctl.h>

#include "arm_compute/core/CPP/CPPTypes.h"
#include "few_rows.h"
#include "integers.h"
#include "pack_tile.h"
#include "src/cpu/kernels/assembly/arm_gemm.hpp"

// Functions of ACL's library that none of its headers declares.
namespace arm_gemm {
acl_qlinear::RunTiles sve_interleaved_s8s32_mmla_8x3VL, sve_interleaved_s8s32_dot_8x3VL;
acl_qlinear::RunTiles a64_interleaved_s8s32_mmla_8x12, a64_gemm_s8_8x12, a64_gemm_s8_4x4;
} // namespace arm_gemm

namespace acl_qlinear {
namespace {

constexpr KernelFamily kFamilies[] = {
    {"sve_interleaved_s8s32_mmla_8x3VL", Needs::sve_i8mm, 0, 3, 8,
     {{{8, 7, arm_gemm::sve_interleaved_s8s32_mmla_8x3VL, pack_tile<8, 8>},
       {4, 3, sve_mmla_4, pack_tile<4, 8>},
       {2, 1, sve_mmla_2, pack_tile<2, 8>}}}},
    {"sve_interleaved_s8s32_dot_8x3VL", Needs::sve, 0, 3, 4,
     {{{8, 5, arm_gemm::sve_interleaved_s8s32_dot_8x3VL, pack_tile<8, 4>}, {4, 1, sve_dot_4, pack_tile<4, 4>}}}},
    {"a64_interleaved_s8s32_mmla_8x12", Needs::i8mm, 12, 0, 8,
     {{{8, 7, arm_gemm::a64_interleaved_s8s32_mmla_8x12, pack_tile<8, 8>},
       {4, 3, neon_mmla_4, pack_tile<4, 8>},
       {2, 1, neon_mmla_2, pack_tile<2, 8>}}}},
    {"a64_gemm_s8_8x12", Needs::dot_product, 12, 0, 4,
     {{{8, 7, arm_gemm::a64_gemm_s8_8x12, pack_tile<8, 4>},
       {4, 3, neon_dot_4, pack_tile<4, 4>},
       {2, 2, neon_dot_2, pack_tile<2, 4>},
       {1, 1, neon_dot_1, pack_tile<1, 4>}}}},
    {"a64_gemm_s8_4x4", Needs::nothing, 4, 0, 16, {{{4, 1, arm_gemm::a64_gemm_s8_4x4, pack_tile<4, 16>}}}},
};

// Calls use(where values of weights [N, K] are, where they are in panels, how many).
template <typename Use> void for_each_step(const KernelFamily& family, int64_t N, int64_t K, const Use& use) {
    const int64_t step = family.step, columns = family.panel_columns(), panel = columns * round_up(K, step);
    for (int64_t n = 0; n < N; ++n) {
        for (int64_t k = 0; k < K; k += step) {
            use(n * K + k, n / columns * panel + k * columns + n % columns * step,
                static_cast<size_t>(std::min(step, K - k)));
        }
    }
}

} // namespace

bool KernelFamily::runs_here() const {
    const arm_compute::CPUInfo& cpu = arm_compute::CPUInfo::get();
    switch (needs) {
    case Needs::nothing: return true;
    case Needs::dot_product: return cpu.has_dotprod();
    case Needs::i8mm: return cpu.has_i8mm();
    case Needs::sve: return cpu.has_sve();
    case Needs::sve_i8mm: return cpu.has_svei8mm();
    }
    return false;
}

int64_t KernelFamily::panel_columns() const {
    return vectors ? vectors * sve_bytes() / 4 : columns;
}

size_t KernelFamily::packed_bytes(int64_t N, int64_t K) const {
    return static_cast<size_t>(round_up(N, panel_columns()) * round_up(K, step));
}

const KernelFamily* find_family(const char* name) {
    const auto* const found = std::find_if(std::begin(kFamilies), std::end(kFamilies),
                                           [&](const KernelFamily& f) { return !std::strcmp(name, f.name); });
    return found == std::end(kFamilies) ? nullptr : found;
}

const KernelFamily& choose_family(int64_t N, int64_t K) {
    // ACL estimates a kernel's cycles from measurements on real cores, and leaves out kernels that
    // this CPU cannot run. It has no estimate for the shortest K, and for long ones it counts passes
    // of its driver over the results, which are not made here.
    const arm_gemm::GemmConfig any;
    const arm_gemm::GemmArgs args(&arm_compute::CPUInfo::get(), /*M=*/96, static_cast<unsigned>(N),
                                  static_cast<unsigned>(std::clamp<int64_t>(K, 16, 512)), /*Ksections=*/1, /*nbatches=*/1,
                                  /*nmulti=*/1, /*indirect_input=*/false, arm_gemm::Activation(), /*maxthreads=*/1,
                                  /*fixed_format=*/false, /*fast_mode=*/false, /*accumulate=*/false, &any);
    const KernelFamily* best = nullptr;
    uint64_t fewest = UINT64_MAX;
    for (const auto& kernel : arm_gemm::get_compatible_kernels<int8_t, int8_t, int32_t>(args)) {
        const KernelFamily* const family = find_family(kernel.name.c_str());
        if (family && kernel.cycle_estimate < fewest) {
            best   = family;
            fewest = kernel.cycle_estimate;
        }
    }
    if (!best) {
        throw std::runtime_error("ACL has no s8 x s8 -> s32 GEMM kernel for this CPU, N=" + std::to_string(N) +
                                 ", K=" + std::to_string(K));
    }
    return *best;
}

uint32_t sve_bytes() {
    static const uint32_t bytes = [] {
        if (!(getauxval(AT_HWCAP) & HWCAP_SVE)) {
            return 0u;
        }
        const int length = prctl(PR_SVE_GET_VL);
        return length < 0 ? 0u : static_cast<uint32_t>(length & PR_SVE_VL_LEN_MASK);
    }();
    return bytes;
}

void pack_weights(const KernelFamily& family, int64_t N, int64_t K, const int8_t* values, int8_t* packed) {
    for_each_step(family, N, K, [&](int64_t value, int64_t place, size_t count) {
        std::memcpy(packed + place, values + value, count);
    });
}

void unpack_weights(const KernelFamily& family, int64_t N, int64_t K, const int8_t* packed, int8_t* values) {
    for_each_step(family, N, K, [&](int64_t value, int64_t place, size_t count) {
        std::memcpy(values + value, packed + place, count);
    });
}

} // namespace acl_qlinear
