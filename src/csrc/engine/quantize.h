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

// `count` floats as s8. `out` has room up to the next multiple of 16.
void quantize(DType type, const void* x, size_t count, const RowQuantization& q, int8_t* out);

struct Range {
    float lowest, highest; // NaN where a value is
};

// The range of `count` floats; {0, 0} when there are none.
Range range_of(DType type, const void* x, size_t count);

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
