// SPDX-License-Identifier: MIT
// Floating-point activations to the s8 values that the GEMM reads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/types.h"

namespace acl_qlinear {

// How the values of one row become s8:
//   clamp(round(x * inverse_scale) + zero_point, -128, 127), ties to even; NaN becomes zero_point.
struct RowQuantization {
    float scale, inverse_scale;
    int32_t zero_point;
};

// How many floats are read, and values written, at a time.
constexpr size_t kFloatsAtOnce = 16;

// Floats of a row of activations.
struct Floats {
    DType type;
    const void* x;
    size_t count;
    // What each is multiplied by in fp32, readable up to a multiple of kFloatsAtOnce; nullptr for nothing.
    const float* pre_scale;
};

// Floats as s8. `out` has room up to the next multiple of kFloatsAtOnce.
void quantize(const Floats& floats, const RowQuantization& q, int8_t* out);

struct Range {
    float lowest, highest; // NaN where a value is
};

// {0, 0} when there are no floats.
Range range_of(const Floats& floats);

// The quantization of u8 values, or of 7 bits of them, that covers a range and has a zero point for 0. `range`:
// without NaN. As PyTorch's quantize_utils (ATen/native/quantized/cpu/QuantUtils.h, ChooseQuantizationParams),
// bit for bit, for which the types of the intermediate values matter.
Quantization choose_quantization(const Range& range, bool reduce_range);

// The quantization of a row with this range, computed in the row's type. As torchao's choose_qparams_affine for int8
// (torchao/quantization/quant_primitives.py), bit for bit: with the arguments of Int8Tensor.from_hp, and narrow with
// those of _int8_symm_per_token_reduced_range_quant. A range with NaN or infinity has a scale that makes all of the
// row's results NaN or infinite. `kind`: not PerRow::no.
RowQuantization choose_row_quantization(DType type, const Range& range, PerRow kind);

} // namespace acl_qlinear
