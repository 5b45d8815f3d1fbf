// SPDX-License-Identifier: MIT
// Weights of one linear layer in the form that ACL's int8 GEMM reads.
//
// A packed weight is one block of bytes without pointers, so it can be copied,
// shared between threads and processes, and used for every M and thread count:
//
//   Header | column sums int32[N] | scales double[1 or N] | bias float[N] | zero points int32[N] |
//   pre-scale float[K] | weights, as pack_weights leaves them
//
// each part aligned to 64 bytes, N and K rounded up to 16 in all but the last, with copies of the
// first scale; zero points are there only where one is not 0, a pre-scale where one was given; the whole size
// is a multiple of N. After the column sums and after the bias, kEpilogueColumns - 1 values more can be read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/families.h"

namespace acl_qlinear {

// What to pack; all pointers are borrowed for the duration of the call.
struct WeightSource {
    const int8_t* values;       // [N, K], row-major
    int64_t N;                  // output features
    int64_t K;                  // input features
    const double* scales;       // scale_count values, finite and > 0
    int64_t scale_count;        // 1 (per tensor) or N (per channel)
    const float* bias;          // [N], or nullptr
    const int32_t* zero_points; // scale_count values, -128 to 127, or nullptr for zeros
    const float* pre_scale;     // [K], what x is multiplied by before it is quantized; or nullptr
};

// A checked view of packed bytes.
struct PackedWeight {
    int64_t N;
    int64_t K;
    int64_t scale_count;
    bool bias_is_nonzero; // in any of its values
    bool bias_was_given;
    const int32_t* column_sums; // sum over k of values[n, k] - zero_points[n]
    const double* scales;
    const float* bias;          // zeros where there is none
    const int32_t* zero_points; // nullptr where all are 0
    const float* pre_scale;     // nullptr where there is none; zeros follow, up to a multiple of kFloatsAtOnce
    const KernelFamily* family;
    const int8_t* values; // packed
};

// The largest K whose int32 accumulators cannot overflow: 2^31 / (128 * 255), and with weight
// zero points 2^31 / (255 * 255).
constexpr int64_t kMaxK = 65793, kMaxKWithZeroPoints = 33025;

// What `pack` makes of a source on this CPU.
struct PackPlan {
    const KernelFamily* family;
    size_t size; // in bytes, a multiple of N
};

// Takes the fastest family. Throws std::invalid_argument when a size, a scale or a bias value is out
// of range.
PackPlan plan_packing(const WeightSource& source);

// The same for a family that is not the fastest.
PackPlan plan_packing(const WeightSource& source, const KernelFamily& family);

// Packs `source` as planned into `bytes`, plan.size of them, aligned to 64 bytes.
void pack(const WeightSource& source, const PackPlan& plan, void* bytes);

// A view of `bytes`, if they are a packed weight made by this version of the engine for a CPU like
// this one. Throws std::invalid_argument, with the reason, if not.
PackedWeight checked_view(const void* bytes, size_t size);

// Writes the weights, [N, K] row-major, as they were before packing.
void unpack(const PackedWeight& weight, int8_t* values);

} // namespace acl_qlinear
