// SPDX-License-Identifier: MIT
// The contract between the engine and its int8 GEMM kernels, s8 x s8 -> s32.
//
// Names. A kernel of ours is called <vectors>_<instruction>_<rows>x<columns>:
//   vectors      neon, 128 bits; sve, of the length that the CPU has
//   instruction  what multiplies: mull (SMULL), dot (SDOT, 4 values of K at a time) or mmla (SMMLA,
//                8 of them)
//   rows         of a tile
//   columns      of a panel: a number, or 3vl for as many as 3 SVE vectors have 32-bit values
// It is in the file called after the instruction set that it takes: neon.cpp, neon_dot.cpp,
// neon_i8mm.cpp, sve_dot.cpp, sve_i8mm.cpp. All but neon.cpp are compiled with flags of their own,
// so everything in them but the kernels has internal linkage, and they use no inline function but
// those of arm_neon.h and arm_sve.h: the linker would keep one copy of it for everybody.
// Kernels of ACL's have ACL's names; see acl_kernels.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace acl_qlinear {

// Computes the products of `tiles` tiles of activations with `panels` panels of weights: for each
// row m and column n, the sum over k of A[m, k] * B[k, n]. K is a multiple of the family's k_step.
// What is one after the other in memory, the slowest index first:
//
//   A  tiles, steps of K, rows of a tile, k_step values
//   B  panels, steps of K, columns of a panel, k_step values
//   C  tiles, panels, rows of a tile, columns of a panel
//
// C is overwritten. A and B have any alignment, C that of int32_t. A kernel reads A and B, and
// writes C, up to their ends and not a byte further.
// `tiles` is 1 for all kernels but the tallest of a family.
using MicroKernel = void(const int8_t* A, const int8_t* B, int32_t* C, int tiles, int panels, int K);

// Packs the values [k, k + count) of a tile's rows as A; may write up to 15 values of each row more.
// What fills up the last step does not matter, since weights are 0 there. Every value is xor'ed
// with `flip`: 0x80 turns u8 into s8.
using PackTile = void(const int8_t* const* rows, int64_t k, int64_t count, int8x16_t flip, int8_t* A);

// What a kernel is for, and what packs for it.
struct TileKernel {
    int64_t rows;     // of a tile
    int64_t min_rows; // from which on it is used, since missing rows cost as much as others: one more
                      // than the next lower kernel's rows, or less where this one is cheaper
    MicroKernel* run;
    PackTile* pack;
};

constexpr int64_t kMaxTileRows = 8;

// What a CPU must have beyond Armv8.2-A.
enum class IsaFeature { none, dot_product, i8mm, sve, sve_i8mm };

// The bytes of an SVE vector, on CPUs that have them.
uint32_t sve_vector_bytes();

MicroKernel neon_mull_4x4;
MicroKernel neon_dot_1x12, neon_dot_2x12, neon_dot_4x12;
MicroKernel neon_mmla_2x12, neon_mmla_4x12;
MicroKernel sve_dot_4x3vl;
MicroKernel sve_mmla_2x3vl, sve_mmla_4x3vl;

} // namespace acl_qlinear
