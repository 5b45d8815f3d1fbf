// From int32 accumulators to quantized outputs.
#pragma once

#include <cstdint>

namespace acl_qlinear {

// out[m, n] = clamp(round((acc[m, n] + offset[n]) * multiplier[n] + bias[n]) + zero_point, lowest, highest)
// with round to nearest, ties to even. Without bias the product is rounded once,
// exactly; with it, after one fused multiply-add in fp32.
// The vectors have one value per column and are readable up to the next multiple
// of 16 columns.
struct Requantization {
    const int32_t* offset;     // nullptr for none
    const float*   multiplier;
    const float*   bias;       // in units of the output scale; nullptr for none
    int32_t        zero_point;
    int32_t        lowest;
    int32_t        highest;
};

// T is int8_t or uint8_t; `acc` is [rows, columns] without gaps, and readable up
// to 15 values past its end; `out` has `out_stride` elements per row.
template <typename T>
void requantize(const int32_t* acc, int64_t rows, int64_t columns, const Requantization& q, T* out,
                int64_t out_stride);

} // namespace acl_qlinear
