// SPDX-License-Identifier: MIT
// All that is used of ACL: its kernels, called directly, and what it knows of CPUs.
//
// The driver around the kernels in arm_gemm merges their tiles into rows in a pass over all
// results, and one more for each block of K; and ACL's public function
// NEGEMMLowpMatrixMultiplyCore keeps a packed copy of the weights for every M besides.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/micro_kernel.h"

// Functions of ACL's library that none of its headers declares.
namespace arm_gemm {
acl_qlinear::MicroKernel sve_interleaved_s8s32_mmla_8x3VL, sve_interleaved_s8s32_dot_8x3VL;
acl_qlinear::MicroKernel a64_interleaved_s8s32_mmla_8x12, a64_gemm_s8_8x12;
} // namespace arm_gemm

namespace acl_qlinear::acl {

struct NamedKernel {
    const char* name; // ACL's
    MicroKernel* run;
};

constexpr NamedKernel kSveMmla8x3VL{"sve_interleaved_s8s32_mmla_8x3VL", arm_gemm::sve_interleaved_s8s32_mmla_8x3VL};
constexpr NamedKernel kSveDot8x3VL{"sve_interleaved_s8s32_dot_8x3VL", arm_gemm::sve_interleaved_s8s32_dot_8x3VL};
constexpr NamedKernel kNeonMmla8x12{"a64_interleaved_s8s32_mmla_8x12", arm_gemm::a64_interleaved_s8s32_mmla_8x12};
constexpr NamedKernel kNeonDot8x12{"a64_gemm_s8_8x12", arm_gemm::a64_gemm_s8_8x12};
// Not called: it overflows where two products of -128 with -128 meet.
constexpr const char* kNeon4x4 = "a64_gemm_s8_4x4";

struct Estimate {
    std::string kernel; // ACL's name
    uint64_t cycles;
};

// The s8 x s8 -> s32 kernels that ACL has for this CPU, and the cycles that it expects them to take
// for weights [N, K].
std::vector<Estimate> estimate(int64_t N, int64_t K);

bool cpu_has(IsaFeature feature);

// The file of the library that calls of ACL go to.
const char* library_path();

} // namespace acl_qlinear::acl
