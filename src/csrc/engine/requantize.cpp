#include "requantize.h"

#include <arm_neon.h>

#include <cstring>
#include <type_traits>

namespace acl_qlinear {
namespace {

constexpr int64_t kStep = 16;

// Adding 1.5 * 2^23 to a value below 2^22 leaves its nearest integer, ties to
// even, in the low bits of the fp32 pattern. In one fused multiply-add this
// rounds the exact product; the saturating subtraction keeps larger values on
// their side.
constexpr float kRounder = 12582912.0f;

struct Vectors {
    int16x8_t zero_point;
    int32x4_t rounder_bits = vreinterpretq_s32_f32(vdupq_n_f32(kRounder));
};

template <bool has_offset, bool has_bias>
inline int32x4_t scale4(const int32_t* acc, const Requantization& q, int64_t n, int32x4_t rounder_bits) {
    int32x4_t sum = vld1q_s32(acc);
    if constexpr (has_offset) {
        sum = vaddq_s32(sum, vld1q_s32(q.offset + n));
    }
    const float32x4_t value  = vcvtq_f32_s32(sum);
    const float32x4_t factor = vld1q_f32(q.multiplier + n);
    if constexpr (has_bias) {
        return vcvtnq_s32_f32(vfmaq_f32(vld1q_f32(q.bias + n), value, factor));
    } else {
        const float32x4_t rounded = vfmaq_f32(vdupq_n_f32(kRounder), value, factor);
        return vqsubq_s32(vreinterpretq_s32_f32(rounded), rounder_bits);
    }
}

template <bool has_offset, bool has_bias>
inline int16x8_t scale8(const int32_t* acc, const Requantization& q, int64_t n, const Vectors& v) {
    const int16x4_t low = vqmovn_s32(scale4<has_offset, has_bias>(acc, q, n, v.rounder_bits));
    const int16x8_t all = vqmovn_high_s32(low, scale4<has_offset, has_bias>(acc + 4, q, n + 4, v.rounder_bits));
    return vqaddq_s16(all, v.zero_point);
}

inline int8x16_t narrow(int16x8_t a, int16x8_t b, int8x16_t lowest, int8x16_t highest) {
    return vminq_s8(vmaxq_s8(vqmovn_high_s16(vqmovn_s16(a), b), lowest), highest);
}
inline uint8x16_t narrow(int16x8_t a, int16x8_t b, uint8x16_t lowest, uint8x16_t highest) {
    return vminq_u8(vmaxq_u8(vqmovun_high_s16(vqmovun_s16(a), b), lowest), highest);
}
inline int8x16_t  splat(int8_t v) { return vdupq_n_s8(v); }
inline uint8x16_t splat(uint8_t v) { return vdupq_n_u8(v); }
inline void store(int8_t* p, int8x16_t v) { vst1q_s8(p, v); }
inline void store(uint8_t* p, uint8x16_t v) { vst1q_u8(p, v); }

template <typename T, bool has_offset, bool has_bias>
void requantize_all(const int32_t* acc, int64_t rows, int64_t columns, const Requantization& q, T* out,
                    int64_t out_stride) {
    const Vectors v{vdupq_n_s16(static_cast<int16_t>(q.zero_point))};
    const auto lowest = splat(static_cast<T>(q.lowest)), highest = splat(static_cast<T>(q.highest));
    const auto sixteen = [&](const int32_t* a, int64_t n) {
        return narrow(scale8<has_offset, has_bias>(a, q, n, v), scale8<has_offset, has_bias>(a + 8, q, n + 8, v), lowest,
                      highest);
    };
    for (int64_t m = 0; m < rows; ++m, acc += columns, out += out_stride) {
        int64_t n = 0;
        for (; n + kStep <= columns; n += kStep) {
            store(out + n, sixteen(acc + n, n));
        }
        if (n < columns) {
            T last[kStep];
            store(last, sixteen(acc + n, n));
            std::memcpy(out + n, last, static_cast<size_t>(columns - n));
        }
    }
}

} // namespace

template <typename T>
void requantize(const int32_t* acc, int64_t rows, int64_t columns, const Requantization& q, T* out,
                int64_t out_stride) {
    static_assert(std::is_same_v<T, int8_t> || std::is_same_v<T, uint8_t>);
    const auto run = q.offset ? q.bias ? requantize_all<T, true, true> : requantize_all<T, true, false>
                     : q.bias ? requantize_all<T, false, true>
                              : requantize_all<T, false, false>;
    run(acc, rows, columns, q, out, out_stride);
}

template void requantize(const int32_t*, int64_t, int64_t, const Requantization&, int8_t*, int64_t);
template void requantize(const int32_t*, int64_t, int64_t, const Requantization&, uint8_t*, int64_t);

} // namespace acl_qlinear
