// SPDX-License-Identifier: MIT
#include "kernels/families.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels/acl_kernels.h"
#include "kernels/integers.h"
#include "kernels/pack_tile.h"

namespace acl_qlinear {
namespace {

constexpr KernelFamily kFamilies[] = {
    {
        .name = acl::kSveMmla8x3VL.name,
        .isa = IsaFeature::sve_i8mm,
        .columns = 0,
        .vectors = 3,
        .k_step = 8,
        .kernels = {{
            {.rows = 8, .min_rows = 7, .run = acl::kSveMmla8x3VL.run, .pack = pack_tile<8, 8>},
            {.rows = 4, .min_rows = 3, .run = sve_mmla_4x3vl, .pack = pack_tile<4, 8>},
            {.rows = 2, .min_rows = 1, .run = sve_mmla_2x3vl, .pack = pack_tile<2, 8>},
        }},
    },
    {
        .name = acl::kSveDot8x3VL.name,
        .isa = IsaFeature::sve,
        .columns = 0,
        .vectors = 3,
        .k_step = 4,
        .kernels = {{
            {.rows = 8, .min_rows = 5, .run = acl::kSveDot8x3VL.run, .pack = pack_tile<8, 4>},
            {.rows = 4, .min_rows = 1, .run = sve_dot_4x3vl, .pack = pack_tile<4, 4>},
        }},
    },
    {
        .name = acl::kNeonMmla8x12.name,
        .isa = IsaFeature::i8mm,
        .columns = 12,
        .vectors = 0,
        .k_step = 8,
        .kernels = {{
            {.rows = 8, .min_rows = 7, .run = acl::kNeonMmla8x12.run, .pack = pack_tile<8, 8>},
            {.rows = 4, .min_rows = 3, .run = neon_mmla_4x12, .pack = pack_tile<4, 8>},
            {.rows = 2, .min_rows = 1, .run = neon_mmla_2x12, .pack = pack_tile<2, 8>},
        }},
    },
    {
        .name = acl::kNeonDot8x12.name,
        .isa = IsaFeature::dot_product,
        .columns = 12,
        .vectors = 0,
        .k_step = 4,
        .kernels = {{
            {.rows = 8, .min_rows = 7, .run = acl::kNeonDot8x12.run, .pack = pack_tile<8, 4>},
            {.rows = 4, .min_rows = 3, .run = neon_dot_4x12, .pack = pack_tile<4, 4>},
            {.rows = 2, .min_rows = 2, .run = neon_dot_2x12, .pack = pack_tile<2, 4>},
            {.rows = 1, .min_rows = 1, .run = neon_dot_1x12, .pack = pack_tile<1, 4>},
        }},
    },
    {
        .name = acl::kNeon4x4,
        .isa = IsaFeature::none,
        .columns = 4,
        .vectors = 0,
        .k_step = 16,
        .kernels = {{
            // ACL's own overflows where two products of -128 with -128 meet.
            {.rows = 4, .min_rows = 1, .run = neon_mull_4x4, .pack = pack_tile<4, 16>},
        }},
    },
};

// Calls use(where values of weights [N, K] are, where they are in panels, how many).
template <typename Use> void for_each_step(const KernelFamily& family, int64_t N, int64_t K, const Use& use) {
    const int64_t step = family.k_step, columns = family.panel_columns(), panel = columns * round_up(K, step);
    for (int64_t n = 0; n < N; ++n) {
        for (int64_t k = 0; k < K; k += step) {
            use(n * K + k, n / columns * panel + k * columns + n % columns * step,
                static_cast<size_t>(std::min(step, K - k)));
        }
    }
}

} // namespace

bool KernelFamily::runs_here() const {
    return acl::cpu_has(isa);
}

int64_t KernelFamily::panel_columns() const {
    return vectors ? vectors * sve_bytes() / 4 : columns;
}

size_t KernelFamily::packed_bytes(int64_t N, int64_t K) const {
    return static_cast<size_t>(round_up(N, panel_columns()) * round_up(K, k_step));
}

FamilyRange all_families() {
    return {std::begin(kFamilies), std::end(kFamilies)};
}

const KernelFamily* find_family(const char* name) {
    for (const KernelFamily& family : all_families()) {
        if (!std::strcmp(name, family.name)) {
            return &family;
        }
    }
    return nullptr;
}

const KernelFamily& choose_family(int64_t N, int64_t K) {
    const KernelFamily* fastest = nullptr;
    uint64_t cycles = UINT64_MAX;
    for (const acl::Estimate& estimate : acl::estimate(N, K)) {
        const KernelFamily* const family = find_family(estimate.kernel.c_str());
        if (family && estimate.cycles < cycles) {
            fastest = family;
            cycles = estimate.cycles;
        }
    }
    if (!fastest) {
        throw std::runtime_error("ACL has no s8 x s8 -> s32 GEMM kernel for this CPU, N=" + std::to_string(N) +
                                 ", K=" + std::to_string(K));
    }
    return *fastest;
}

uint32_t sve_bytes() {
    static const bool has_sve = acl::cpu_has(IsaFeature::sve);
    return has_sve ? sve_vector_bytes() : 0;
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
