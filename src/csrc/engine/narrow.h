// SPDX-License-Identifier: MIT
// 16 integers from 16 bits to 8, saturated. A pointer's type tells the type of integers.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace acl_qlinear {

inline void store(int8_t* p, int16x8_t a, int16x8_t b) {
    vst1q_s8(p, vqmovn_high_s16(vqmovn_s16(a), b));
}
inline void store(uint8_t* p, int16x8_t a, int16x8_t b) {
    vst1q_u8(p, vqmovun_high_s16(vqmovun_s16(a), b));
}

} // namespace acl_qlinear
