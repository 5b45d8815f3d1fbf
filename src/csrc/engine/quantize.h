// SPDX-License-Identifier: MIT
// Floating-point activations to the s8 values that the GEMM reads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/types.h"

namespace acl_qlinear {

// `count` fp32 or bf16 values as s8, with x's quantization:
//   clamp(round(x * fp32(1 / scale)) + zero_point, -128, 127), ties to even.
// The result is in this thread's scratch memory.
Input quantize(const Input& x, size_t count);

struct Range {
    float lowest, highest; // NaN where a value is
};

// The range of `count` fp32 or bf16 values; {0, 0} when there are none.
Range range_of(DType type, const void* x, size_t count);

// The quantization of u8 values, or of 7 bits of them, that covers a range and has a zero point for 0. `range`:
// without NaN. As PyTorch's quantize_utils (ATen/native/quantized/cpu/QuantUtils.h, ChooseQuantizationParams),
// bit for bit, for which the types of the intermediate values matter.
Quantization choose_quantization(const Range& range, bool reduce_range);

} // namespace acl_qlinear
