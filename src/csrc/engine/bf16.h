// SPDX-License-Identifier: MIT
// bf16 in NEON registers, for CPUs with and without bf16 instructions.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace acl_qlinear {

inline float32x4_t load_bf16(const uint16_t* x) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(x), 16));
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline uint16x4_t to_bf16(float32x4_t x) {
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    const uint32x4_t is_nan = vmvnq_u32(vceqq_f32(x, x));
    return vshrn_n_u32(vbslq_u32(is_nan, vdupq_n_u32(0x7fc00000), rounded), 16);
}

inline float rounded_to_bf16(float x) {
    const uint16x4_t rounded = to_bf16(vdupq_n_f32(x));
    return vgetq_lane_f32(vreinterpretq_f32_u32(vshll_n_u16(rounded, 16)), 0);
}

} // namespace acl_qlinear
