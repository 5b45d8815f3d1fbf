// ACL's int8 GEMM (arm_gemm), s8 x s8 -> s32, over weights that were packed once.
//
// ACL's public function NEGEMMLowpMatrixMultiplyCore keeps a packed copy of the
// weights for every M and spends 14,000 instructions a call around the kernel;
// arm_gemm, the layer below it in the same library, lets any number of GEMMs of
// different M share one packed copy.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acl_qlinear {

// The longest name of an ACL kernel, with its final 0.
constexpr size_t kKernelNameSize = 48;

// A kernel, and the layout of the weights that it reads.
struct GemmKernel {
    char     name[kKernelNameSize]; // ACL's name, e.g. sve_hybrid_s8s32_mmla_6x4VL
    uint32_t is_hybrid;   // reads activations in place, and any range of columns by itself
    uint32_t column_step; // hybrid kernels: the width of one panel, in columns
    uint64_t panel_bytes; // size of the packed weights
};

// The rows that one GEMM call gets at most, kMaxRows, are a multiple of 6 and 8,
// the heights of ACL's tiles: enough to use a panel of weights often while it is
// in the L1 cache, few enough for the results to stay in the L2 cache.
constexpr int64_t kMaxRows = 96;

// The two kernels for [M, K] x [K, N] on this CPU: a hybrid one that suits few
// rows, and an interleaved one, which copies the activations and merges tiles,
// and is faster for many. `wide` is used for m rows where bit m - 1 of
// `wide_for_rows` is set; where no bit is, it is not packed (panel_bytes is 0).
struct KernelChoice {
    GemmKernel narrow;
    GemmKernel wide;
    uint64_t   wide_for_rows[2];
};
KernelChoice choose_kernels(int64_t N, int64_t K);

// Packs weights, given as [K, N] row-major, into `panels` (kernel.panel_bytes bytes).
void pack_panels(const GemmKernel& kernel, int64_t N, int64_t K, const int8_t* transposed, void* panels);

// One GEMM of `rows` rows and the columns [column_begin, column_end):
//   out[m, n - column_begin] = sum over k of A[m, k] * B[k, n]
// Kernels that are not hybrid take all columns at once, and add `offset` in passing; for hybrid
// ones, which do not, it is nullptr. `column_begin` is a multiple of the kernel's column step.
struct GemmTile {
    int64_t       N, K, rows, column_begin, column_end;
    const int8_t* activations; // [rows, K], row-major
    const void*   panels;
    const int32_t* offset;     // [N], or nullptr for none
    int32_t*      out;         // [rows, column_end - column_begin]
};
void run_gemm(const GemmKernel& kernel, const GemmTile& tile);

} // namespace acl_qlinear
