// Activations of any type to the s8 values that the GEMM reads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acl_qlinear {

// Element types of activations and outputs; bf16 is the upper half of an fp32.
enum class DType { s8, u8, f32, bf16 };

constexpr size_t size_of(DType type) {
    return type == DType::f32 ? 4 : type == DType::bf16 ? 2 : 1;
}

struct Quantization {
    double  scale;
    int32_t zero_point; // in -128 to 127, for u8 in 0 to 255
};

// The zero point of the s8 values that `to_signed` makes.
constexpr int32_t signed_zero_point(DType type, int32_t zero_point) {
    return type == DType::u8 ? zero_point - 128 : zero_point;
}

// `count` values as s8: u8 values with the top bit flipped, fp32 and bf16 values quantized by
//   clamp(round(x * fp32(1 / scale)) + zero_point, -128, 127), ties to even.
// s8 values are returned in place, the others in this thread's scratch memory.
const int8_t* to_signed(DType type, const void* x, size_t count, const Quantization& q);

struct Range {
    float lowest, highest; // NaN where a value is
};

// The range of `count` fp32 or bf16 values; {0, 0} when there are none.
Range range_of(DType type, const void* x, size_t count);

} // namespace acl_qlinear
