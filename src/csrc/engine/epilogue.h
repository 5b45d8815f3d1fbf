// SPDX-License-Identifier: MIT
// From int32 accumulators to outputs: scale, bias, activation function, and the output's type.
#pragma once

#include <cstdint>

#include "engine/gemm.h"
#include "engine/quantize.h"
#include "engine/types.h"

namespace acl_qlinear {

// What is done to acc[m, n], an int32:
//   v = activation((acc[m, n] + offset[n]) * multiplier[n] + bias[n])
//   floats:  out[m, n] = v
//   s8, u8:  out[m, n] = saturate(round(v * inverse_scale) + zero_point)
// or, for floats, where each row is quantized by its own range:
//   v = activation(((acc[m, n] - rows[m].zero_point * offset[n]) * rows[m].scale) * multiplier[n] + bias[n])
// with round to nearest, ties to even, and fused multiply-adds in fp32. The sum of acc[m, n] and
// offset is exact up to 2^24, and has the 24 bits of an fp32 beyond. s8 and u8 with neither bias nor
// activation are rounded once more, and only then.
// The vectors have one value per column. kEpilogueColumns of them are read at a time, so up to
// kEpilogueColumns - 1 are read beyond the last column; those may be anything.
struct Epilogue {
    const int32_t* offset; // nullptr for none
    const float* multiplier;
    const float* bias; // nullptr for none
    PostOp post;
    DType type;          // of the output
    float inverse_scale; // s8, u8: 1 unless `activation` is to see other units than the output's
    int32_t zero_point;
    const RowQuantization* rows; // nullptr for none
};

// For the first `rows` rows and `columns` columns of `acc`; `out` has `out_stride` elements per
// row.
void apply_epilogue(const Accumulators& acc, int64_t rows, int64_t columns, const Epilogue& e, void* out,
                    int64_t out_stride);

} // namespace acl_qlinear
