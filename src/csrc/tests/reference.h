// SPDX-License-Identifier: MIT
// The arithmetic that Epilogue promises, for one value.
#pragma once

#include <cmath>

#include "engine/activation.h"
#include "engine/epilogue.h"
#include "tests/support.h"

namespace acl_qlinear::testing {

// The activation functions' own values are test_activation.cpp's matter.
inline float activated(float x, const PostOp& post) {
    const float32x4_t v = vdupq_n_f32(x), slope = vdupq_n_f32(post.negative_slope);
    const auto first = [](float32x4_t values) { return vgetq_lane_f32(values, 0); };
    switch (post.activation) {
    case Activation::none: return x;
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::leaky_relu: return x < 0 ? x * post.negative_slope : x;
    case Activation::tanh: return first(activate<Activation::tanh>(v, slope));
    case Activation::gelu: return first(activate<Activation::gelu>(v, slope));
    case Activation::gelu_tanh: return first(activate<Activation::gelu_tanh>(v, slope));
    case Activation::silu: return first(activate<Activation::silu>(v, slope));
    }
    return x;
}

// As real numbers where one rounding is promised; as fp32 where several are.
inline double expected_real(int32_t acc, const Epilogue& e, int64_t m, int64_t n) {
    const int32_t offset = e.offset ? e.offset[n] : 0;
    const float sum = e.rows ? static_cast<float>(acc - e.rows[m].zero_point * offset) * e.rows[m].scale
                             : static_cast<float>(acc + offset);
    const float multiplier = e.multiplier[n];
    const bool is_linear = e.post.activation == Activation::none || e.post.activation == Activation::relu;
    if (is_8bit(e.type) && is_linear && !e.bias) {
        return static_cast<double>(sum) * multiplier; // exact in double
    }
    const float linear = e.bias ? std::fma(sum, multiplier, e.bias[n]) : sum * multiplier;
    if (is_8bit(e.type) && is_linear) {
        return linear;
    }
    return activated(linear, e.post);
}

template <typename T> T expected_integer(int32_t acc, const Epilogue& e, int64_t m, int64_t n) {
    double v = expected_real(acc, e, m, n);
    if (e.post.activation != Activation::none && e.post.activation != Activation::relu) {
        v = static_cast<float>(v) * e.inverse_scale;
    }
    int64_t q = rounded(v);
    if (e.post.activation == Activation::relu) {
        q = std::max<int64_t>(q, 0);
    }
    // Saturated to 16 bits before the zero point is added, which shows where it is beyond 8 bits' range alone.
    return saturated<T>(saturated<int16_t>(q) + e.zero_point);
}

// The bits of an output.
inline uint32_t expected_bits(int32_t acc, const Epilogue& e, int64_t m, int64_t n) {
    switch (e.type) {
    case DType::s8: return static_cast<uint8_t>(expected_integer<int8_t>(acc, e, m, n));
    case DType::u8: return expected_integer<uint8_t>(acc, e, m, n);
    case DType::bf16: return bf16_of_float(static_cast<float>(expected_real(acc, e, m, n)));
    case DType::f16: return f16_of_float(static_cast<float>(expected_real(acc, e, m, n)));
    case DType::f32: break;
    }
    const auto value = static_cast<float>(expected_real(acc, e, m, n));
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The bits of output i.
inline uint32_t bits_of(DType type, const char* out, int64_t i) {
    uint32_t bits = 0;
    std::memcpy(&bits, out + static_cast<size_t>(i) * size_of(type), size_of(type));
    return bits;
}

} // namespace acl_qlinear::testing
