// SPDX-License-Identifier: MIT
// Every kernel against sums one by one.
#include <gtest/gtest.h>

#include <numeric>

#include "engine/gemm.h"
#include "kernels/acl_kernels.h"
#include "kernels/integers.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::families_here;
using testing::Guarded;
using testing::Random;

struct Matrices {
    std::vector<int8_t> x, w; // [M, K], [N, K]
    int64_t M, N, K;

    Matrices(int64_t rows, int64_t columns, int64_t depth, Random& random)
        : x(static_cast<size_t>(rows * depth)), w(static_cast<size_t>(columns * depth)), M(rows), N(columns), K(depth) {
        random.fill_bytes(x);
        random.fill_bytes(w);
    }

    int32_t product(int64_t m, int64_t n) const {
        return std::inner_product(x.data() + m * K, x.data() + (m + 1) * K, w.data() + n * K, int32_t{0});
    }
};

// The tiles of `of.M / kernel.rows` as A of the contract, to the last byte.
std::vector<int8_t> pack_tiles(const KernelFamily& family, const TileKernel& kernel, const Matrices& of) {
    const int64_t tile_bytes = kernel.rows * round_up(of.K, family.k_step);
    std::vector<int8_t> packed;
    for (int64_t first = 0; first < of.M; first += kernel.rows) {
        const int8_t* rows[kMaxTileRows];
        for (int64_t i = 0; i < kernel.rows; ++i) {
            rows[i] = of.x.data() + (first + i) * of.K;
        }
        std::vector<int8_t> tile(static_cast<size_t>(kernel.rows * round_up<int64_t>(of.K, 16)));
        kernel.pack(rows, 0, of.K, vdupq_n_s8(0), tile.data());
        packed.insert(packed.end(), tile.begin(), tile.begin() + tile_bytes);
    }
    return packed;
}

void check_kernel(const KernelFamily& family, const TileKernel& kernel, const Matrices& of) {
    const int64_t tiles = of.M / kernel.rows, width = family.panel_columns(), panels = ceil_div(of.N, width);
    const Guarded<int8_t> A(pack_tiles(family, kernel, of));
    Guarded<int8_t> B(family.packed_bytes(of.N, of.K));
    pack_weights(family, of.N, of.K, of.w.data(), B.data());
    Guarded<int32_t> C(static_cast<size_t>(of.M * panels * width));
    std::fill(C.begin(), C.end(), 0x55555555);
    kernel.run(A.data(), B.data(), C.data(), static_cast<int>(tiles), static_cast<int>(panels),
               static_cast<int>(round_up(of.K, family.k_step)));
    int wrong = 0;
    for (int64_t m = 0; m < of.M; ++m) {
        for (int64_t n = 0; n < panels * width; ++n) {
            const int64_t tile = m / kernel.rows * panels + n / width;
            const int32_t sum = C[(tile * kernel.rows + m % kernel.rows) * width + n % width];
            // Columns that fill up the last panel have weights 0.
            wrong += sum != (n < of.N ? of.product(m, n) : 0);
        }
    }
    EXPECT_EQ(wrong, 0) << family.name << ", height " << kernel.rows << ", M=" << of.M << " N=" << of.N
                        << " K=" << of.K;
}

TEST(Kernels, EveryHeightEqualsSumsOneByOne) {
    Random random(1);
    for (const KernelFamily* const family : families_here()) {
        const int64_t width = family->panel_columns();
        for (const TileKernel& kernel : family->kernels) {
            const bool is_tallest = &kernel == family->kernels.data();
            for (const int64_t tiles : kernel.run ? std::vector<int64_t>{1, 2, 3} : std::vector<int64_t>{}) {
                for (const int64_t K : {1, 2, 3, 5, 8, 9, 15, 16, 17, 23, 31, 33, 47, 64, 65, 127, 333}) {
                    for (const int64_t N : {int64_t{1}, width - 1, width, width + 1, 3 * width - 2}) {
                        if (is_tallest || tiles == 1) {
                            check_kernel(*family, kernel, Matrices(tiles * kernel.rows, N, K, random));
                        }
                    }
                }
            }
        }
    }
}

TEST(Kernels, LargestSumsDoNotOverflow) {
    constexpr int64_t kLargestK = 65793;
    for (const KernelFamily* const family : families_here()) {
        for (const TileKernel& kernel : family->kernels) {
            if (kernel.run) {
                Random random(0);
                Matrices extremes(kernel.rows, 5, kLargestK, random);
                std::fill(extremes.x.begin(), extremes.x.end(), int8_t{-128});
                std::fill(extremes.w.begin(), extremes.w.end(), int8_t{-128});
                check_kernel(*family, kernel, extremes);
            }
        }
    }
}

// Packing of activations: any number of rows, several blocks of K, both types.
TEST(Kernels, AnyNumberOfRows) {
    Random random(2);
    for (const KernelFamily* const family : families_here()) {
        const int64_t width = family->panel_columns();
        for (int64_t M = 1; M <= 26; ++M) {
            for (const int64_t K : {1, 8, 31, M % 5 ? 100 : 3000}) {
                const Matrices of(M, 30, K, random);
                const DType type = random.one_of({DType::s8, DType::u8});
                Guarded<int8_t> x(of.x), B(family->packed_bytes(of.N, K));
                for (int8_t& value : x) {
                    value = static_cast<int8_t>(type == DType::u8 ? value ^ 0x80 : value);
                }
                pack_weights(*family, of.N, K, of.w.data(), B.data());
                const PackedActivations packed(*family, {type, x.data(), M, K, nullptr, nullptr});
                const Accumulators acc = packed.multiply(B.data(), ceil_div(of.N, width));
                int wrong = 0;
                for (int64_t m = 0; m < M; ++m) {
                    for (int64_t n = 0; n < of.N; ++n) {
                        wrong += acc.values[(n / width * acc.rows + m) * width + n % width] != of.product(m, n);
                    }
                }
                EXPECT_EQ(wrong, 0) << family->name << ", M=" << M << " K=" << K << (type == DType::u8 ? " u8" : " s8");
            }
        }
    }
}

TEST(Kernels, FastestFamilyRunsHere) {
    for (const int64_t size : {1, 16, 768, 4096}) {
        EXPECT_TRUE(choose_family(size, size).runs_here());
    }
    EXPECT_EQ(find_family("a kernel"), nullptr);
}

// What this process runs on, for whoever reads the log.
TEST(Kernels, AreListed) {
    std::string names;
    for (const KernelFamily* const family : families_here()) {
        names += std::string(names.empty() ? "" : " ") + family->name;
    }
    std::printf("SVE of %u bits; families: %s\n", 8 * sve_bytes(), names.c_str());
    EXPECT_TRUE(find_family(acl::kNeon4x4)->runs_here());
}

} // namespace
} // namespace acl_qlinear
