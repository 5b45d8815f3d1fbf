// Weights of one linear layer in the form that ACL's int8 GEMM reads.
//
// A packed weight is one block of bytes without pointers, so it can be copied,
// shared between threads and processes, and used for every M and thread count:
//
//   Header | column sums int32[N] | scales double[1 or N] | bias float[N] | panels of one or two kernels
//
// each part aligned to 64 bytes, N rounded up to 16 in sums and bias.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "gemm.h"

namespace acl_qlinear {

// What to pack; all pointers are borrowed for the duration of the call.
struct WeightSource {
    const int8_t* values;     // [N, K], row-major
    int64_t       N;          // output features
    int64_t       K;          // input features
    const double* scales;     // scale_count values, finite and > 0
    int64_t       scale_count; // 1 (per tensor) or N (per channel)
    const float*  bias;       // [N], or nullptr
};

// A checked view of packed bytes.
struct PackedWeight {
    int64_t        N;
    int64_t        K;
    int64_t        scale_count;
    bool           has_bias;
    const int32_t* column_sums; // sum over k of values[n, k]
    const double*  scales;
    const float*   bias;        // zeros where there is none
    KernelChoice   kernels;
    const void*    narrow_panels;
    const void*    wide_panels;
};

// The largest K whose int32 accumulators cannot overflow: 2^31 / (128 * 255).
constexpr int64_t kMaxK = 65793;

// Packs `source`. `allocate` gets the size in bytes and returns the block to
// fill, aligned to 64 bytes.
// Throws std::invalid_argument when a size, a scale or a bias value is out of range.
void pack(const WeightSource& source, const std::function<void*(size_t)>& allocate);

// Checks that `bytes` is a packed weight made by this version of the engine for
// a CPU like this one. Throws std::invalid_argument, with the reason, if not.
PackedWeight view_packed(const void* bytes, size_t size);

} // namespace acl_qlinear
