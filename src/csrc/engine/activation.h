// SPDX-License-Identifier: MIT
// Activation functions on four fp32 values. Only additions, multiplications, divisions and
// integer operations: the same bits on every CPU.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "engine/types.h"

namespace acl_qlinear {

// Whether f(c x) = c f(x) for every c > 0, so that it can be applied in any units.
constexpr bool is_homogeneous(Activation a) {
    return a == Activation::none || a == Activation::relu || a == Activation::leaky_relu;
}

namespace detail {

inline float32x4_t splat(float v) {
    return vdupq_n_f32(v);
}

// The same value in all lanes.
struct alignas(16) Coefficient {
    // NOLINTNEXTLINE(misc-explicit-constructor): a list of coefficients reads as one of numbers.
    constexpr Coefficient(float value) : lanes{value, value, value, value} {}
    float lanes[4];
};

// Horner's scheme, the coefficient of the highest power first.
template <size_t n> inline float32x4_t polynomial(float32x4_t x, const Coefficient (&coefficients)[n]) {
    const Coefficient* c = coefficients;
    // A multiply-add overwrites its addend: loading it each time is free beside the arithmetic, copying it from a
    // register is not. With x, so that no other call's loads are taken.
    asm("" : "+r"(c) : "w"(x));
    float32x4_t sum = vld1q_f32(c->lanes);
    for (size_t i = 1; i < n; ++i) {
        sum = vfmaq_f32(vld1q_f32(c[i].lanes), sum, x);
    }
    return sum;
}

// e^x for x in [-87, 88], clamped to it: 2^n e^r with |r| <= ln 2 / 2, ln 2 in two parts, and
// the polynomial for e^r of the Cephes library's expf; within 2 units of fp32's last place.
inline float32x4_t exp(float32x4_t x) {
    x = vminq_f32(vmaxq_f32(x, splat(-87.0f)), splat(88.0f));
    const float32x4_t n = vrndnq_f32(vmulq_f32(x, splat(1.44269504088896341f)));
    float32x4_t r = vfmsq_f32(x, n, splat(0.693359375f));
    r = vfmsq_f32(r, n, splat(-2.12194440e-4f));
    static constexpr Coefficient coefficients[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                                                   4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const float32x4_t p = polynomial(r, coefficients);
    const float32x4_t e_r = vaddq_f32(vfmaq_f32(r, p, vmulq_f32(r, r)), splat(1.0f));
    const int32x4_t power = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    return vmulq_f32(e_r, vreinterpretq_f32_s32(power));
}

// Both functions are x p(x^2) / q(x^2), within 3.5e-7 of themselves. Numerator and denominator were fitted to f(x) / x
// by least squares at 6,001 Chebyshev nodes, reweighted until the largest errors are equal (Lawson's algorithm): to
// 4e-9 and 5e-8. At its limit each is 1 in fp32, exactly, and so is what is larger.
template <size_t P, size_t Q>
inline float32x4_t rational(float32x4_t x, float limit, const Coefficient (&p)[P], const Coefficient (&q)[Q]) {
    x = vminq_f32(vmaxq_f32(x, splat(-limit)), splat(limit));
    const float32x4_t square = vmulq_f32(x, x);
    return vdivq_f32(vmulq_f32(x, polynomial(square, p)), polynomial(square, q));
}

inline float32x4_t tanh(float32x4_t x) {
    static constexpr Coefficient p[] = {
        -9.91404766e-14f, 5.80269166e-11f, -2.1265258e-8f, 1.14023142e-5f, 3.1272592e-3f, 0.131047681f, 1.0f};
    static constexpr Coefficient q[] = {2.58030952e-4f, 2.45876461e-2f, 0.46438098f, 1.0f};
    return rational(x, 8.5f, p, q);
}

inline float32x4_t erf(float32x4_t x) {
    static constexpr Coefficient p[] = {2.0148029e-8f,  -1.96314159e-6f, 1.40588425e-4f, 3.63188796e-3f,
                                        5.03437147e-2f, 0.198173225f,    1.12837911f};
    static constexpr Coefficient q[] = {9.40480793e-4f, 1.420708e-2f, 0.114277147f, 0.50895822f, 1.0f};
    return rational(x, 3.8999f, p, q);
}

// For a gate, which is 0 below this in fp32: -inf would make NaN of it, and exp() is clamped.
constexpr float kClosed = -104.0f;

// x (1 + f) / 2
inline float32x4_t gate(float32x4_t x, float32x4_t f) {
    const float32x4_t half = vmulq_f32(x, splat(0.5f));
    return vfmaq_f32(half, half, f);
}

} // namespace detail

// Formulas as in torch.nn.functional; gelu_tanh is gelu(approximate="tanh").
template <Activation activation> inline float32x4_t activate(float32x4_t x, float32x4_t negative_slope) {
    using namespace detail;
    if constexpr (activation == Activation::gelu || activation == Activation::gelu_tanh ||
                  activation == Activation::silu) {
        x = vmaxq_f32(x, splat(kClosed));
    }
    if constexpr (activation == Activation::relu) {
        return vmaxq_f32(x, splat(0.0f));
    } else if constexpr (activation == Activation::leaky_relu) {
        return vbslq_f32(vcltq_f32(x, splat(0.0f)), vmulq_f32(x, negative_slope), x);
    } else if constexpr (activation == Activation::tanh) {
        return tanh(x);
    } else if constexpr (activation == Activation::gelu) {
        return gate(x, erf(vmulq_f32(x, splat(0.70710678118654752f))));
    } else if constexpr (activation == Activation::gelu_tanh) {
        const float32x4_t cubic = vmulq_f32(vmulq_f32(x, x), x);
        return gate(x, tanh(vmulq_f32(vfmaq_f32(x, cubic, splat(0.044715f)), splat(0.79788456080286536f))));
    } else if constexpr (activation == Activation::silu) {
        return vdivq_f32(x, vaddq_f32(splat(1.0f), exp(vnegq_f32(x))));
    } else {
        return x;
    }
}

} // namespace acl_qlinear
