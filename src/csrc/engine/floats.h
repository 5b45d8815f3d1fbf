// SPDX-License-Identifier: MIT
// Floats of each type, in memory and as fp32 in NEON registers, for CPUs with and without bf16 and fp16
// arithmetic. A pointer's type tells the type of floats: float, uint16_t for bf16, __fp16.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <type_traits>

#include "engine/types.h"

namespace acl_qlinear {

inline float32x4_t load4(const float* x) {
    return vld1q_f32(x);
}
inline float32x4_t load4(const uint16_t* x) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(x), 16));
}
inline float32x4_t load4(const __fp16* x) {
    return vcvt_f32_f16(vld1_f16(x));
}

// Round to nearest, ties to even; NaN stays NaN, and what is too large becomes infinity.
inline void store4(float* x, float32x4_t v) {
    vst1q_f32(x, v);
}
inline void store4(uint16_t* x, float32x4_t v) {
    const uint32x4_t bits = vreinterpretq_u32_f32(v);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t is_nan = vmvnq_u32(vceqq_f32(v, v));
    vst1_u16(x, vshrn_n_u32(vbslq_u32(is_nan, vdupq_n_u32(0x7fc00000), rounded), 16));
}
inline void store4(__fp16* x, float32x4_t v) {
    vst1_f16(x, vcvt_f16_f32(v));
}

// Calls `body` with x, of floats, as a pointer of its type.
template <typename Body> auto with_floats(DType type, const void* x, const Body& body) {
    switch (type) {
    case DType::bf16: return body(static_cast<const uint16_t*>(x));
    case DType::f16: return body(static_cast<const __fp16*>(x));
    default: return body(static_cast<const float*>(x));
    }
}

// What this type of floats makes of a value.
inline float rounded_to(DType type, float value) {
    return with_floats(type, nullptr, [value](const auto* x) {
        std::remove_const_t<std::remove_pointer_t<decltype(x)>> rounded[4];
        store4(rounded, vdupq_n_f32(value));
        return vgetq_lane_f32(load4(rounded), 0);
    });
}

} // namespace acl_qlinear
