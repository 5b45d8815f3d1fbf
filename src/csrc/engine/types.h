// SPDX-License-Identifier: MIT
// What a call is made of: operands, how their integers stand for real numbers, and what follows
// the product.
#pragma once

#include <cstddef>
#include <cstdint>

namespace acl_qlinear {

// Element types of activations and outputs. bf16 is the upper half of an fp32. All but s8 and u8 are floats.
enum class DType { s8, u8, f32, bf16, f16 };

constexpr size_t size_of(DType type) {
    switch (type) {
    case DType::f32: return 4;
    case DType::bf16:
    case DType::f16: return 2;
    default: return 1;
    }
}

constexpr bool is_8bit(DType type) {
    return type == DType::s8 || type == DType::u8;
}

// An integer q stands for (q - zero_point) * scale.
struct Quantization {
    double scale;
    int32_t zero_point; // in -128 to 127, for u8 in 0 to 255
};

// The zero point of u8 values when they are shifted to s8; of other types, the one given.
constexpr int32_t signed_zero_point(DType type, int32_t zero_point) {
    return type == DType::u8 ? zero_point - 128 : zero_point;
}

// A row-major matrix. Data is void or const void.
template <typename Data> struct Operand {
    DType type;
    Data* data;
    Quantization quantization;
};

// Where x has floats, its quantization is that of the s8 values that it is quantized to, for all rows alike.
using Input = Operand<const void>;
// Where y has floats, its quantization is not used.
using Output = Operand<void>;

enum class Activation { none, relu, leaky_relu, tanh, gelu, gelu_tanh, silu };

// Whether each row of float activations is quantized by its own range; whether its zero point is then 0;
// narrow: and -128 not used.
enum class PerRow { no, asymmetric, symmetric, narrow };

struct PostOp {
    Activation activation;
    float negative_slope; // of leaky_relu
};

} // namespace acl_qlinear
