#include "epilogue.h"

#include <arm_neon.h>

#include <cstring>

#include "bf16.h"

namespace acl_qlinear {
namespace {

constexpr int64_t kStep = 16;

// Adding 1.5 * 2^23 to a value below 2^22 leaves its nearest integer, ties to
// even, in the low bits of the fp32 pattern. In one fused multiply-add this
// rounds the exact product; the saturating subtraction keeps larger values on
// their side.
constexpr float kRounder = 12582912.0f;

// The constants of a call, in registers.
struct Constants {
    int16x8_t   zero_point;
    float32x4_t per_unit;
    float32x4_t negative_slope;
    int32x4_t   rounder_bits;
};

template <bool has_offset> inline float32x4_t load4(const int32_t* acc, const Epilogue& e, int64_t n) {
    int32x4_t sum = vld1q_s32(acc);
    if constexpr (has_offset) {
        sum = vaddq_s32(sum, vld1q_s32(e.offset + n));
    }
    return vcvtq_f32_s32(sum);
}

template <bool has_offset, bool has_bias, Activation activation>
inline float32x4_t value4(const int32_t* acc, const Epilogue& e, int64_t n, const Constants& c) {
    const float32x4_t sum = load4<has_offset>(acc, e, n), factor = vld1q_f32(e.multiplier + n);
    const float32x4_t value = has_bias ? vfmaq_f32(vld1q_f32(e.bias + n), sum, factor) : vmulq_f32(sum, factor);
    return activate<activation>(value, c.negative_slope);
}

template <bool has_offset, bool has_bias, Activation activation>
inline int32x4_t round4(const int32_t* acc, const Epilogue& e, int64_t n, const Constants& c) {
    if constexpr (activation != Activation::none) {
        return vcvtnq_s32_f32(vmulq_f32(value4<has_offset, has_bias, activation>(acc, e, n, c), c.per_unit));
    } else if constexpr (has_bias) {
        return vcvtnq_s32_f32(value4<has_offset, has_bias, activation>(acc, e, n, c));
    } else {
        const float32x4_t sum     = load4<has_offset>(acc, e, n);
        const float32x4_t rounded = vfmaq_f32(vdupq_n_f32(kRounder), sum, vld1q_f32(e.multiplier + n));
        return vqsubq_s32(vreinterpretq_s32_f32(rounded), c.rounder_bits);
    }
}

template <bool has_offset, bool has_bias, Activation activation>
inline int16x8_t round8(const int32_t* acc, const Epilogue& e, int64_t n, const Constants& c) {
    const int16x4_t low = vqmovn_s32(round4<has_offset, has_bias, activation>(acc, e, n, c));
    const int16x8_t all = vqmovn_high_s32(low, round4<has_offset, has_bias, activation>(acc + 4, e, n + 4, c));
    return vqaddq_s16(all, c.zero_point);
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
inline void store4(float* p, float32x4_t v) { vst1q_f32(p, v); }
inline void store4(uint16_t* p, float32x4_t v) { vst1_u16(p, to_bf16(v)); }

// Out is int8_t, uint8_t, float, or uint16_t for bf16.
template <typename Out, bool has_offset, bool has_bias, Activation activation>
void apply_to_all(const int32_t* acc, int64_t rows, int64_t columns, const Epilogue& e, void* out, int64_t stride) {
    const Constants c{vdupq_n_s16(static_cast<int16_t>(e.zero_point)), vdupq_n_f32(e.per_unit),
                      vdupq_n_f32(e.negative_slope), vreinterpretq_s32_f32(vdupq_n_f32(kRounder))};
    const auto sixteen = [&](const int32_t* a, int64_t n, Out* to) {
        if constexpr (sizeof(Out) == 1) {
            const auto lowest = splat(static_cast<Out>(e.lowest)), highest = splat(static_cast<Out>(e.highest));
            store(to, narrow(round8<has_offset, has_bias, activation>(a, e, n, c),
                             round8<has_offset, has_bias, activation>(a + 8, e, n + 8, c), lowest, highest));
        } else {
            for (int64_t i = 0; i < kStep; i += 4) {
                store4(to + i, value4<has_offset, has_bias, activation>(a + i, e, n + i, c));
            }
        }
    };
    auto* row = static_cast<Out*>(out);
    for (int64_t m = 0; m < rows; ++m, acc += columns, row += stride) {
        int64_t n = 0;
        for (; n + kStep <= columns; n += kStep) {
            sixteen(acc + n, n, row + n);
        }
        if (n < columns) {
            Out last[kStep];
            sixteen(acc + n, n, last);
            std::memcpy(row + n, last, static_cast<size_t>(columns - n) * sizeof(Out));
        }
    }
}

using Apply = void(const int32_t*, int64_t, int64_t, const Epilogue&, void*, int64_t);

template <typename Out, Activation activation> Apply* with_vectors(const Epilogue& e) {
    return e.offset ? e.bias ? apply_to_all<Out, true, true, activation> : apply_to_all<Out, true, false, activation>
           : e.bias ? apply_to_all<Out, false, true, activation>
                    : apply_to_all<Out, false, false, activation>;
}

template <typename Out> Apply* with_activation(const Epilogue& e) {
    switch (e.activation) {
    case Activation::none: return with_vectors<Out, Activation::none>(e);
    // On integers, `lowest` does it.
    case Activation::relu:
        return with_vectors<Out, sizeof(Out) == 1 ? Activation::none : Activation::relu>(e);
    case Activation::leaky_relu: return with_vectors<Out, Activation::leaky_relu>(e);
    case Activation::tanh: return with_vectors<Out, Activation::tanh>(e);
    case Activation::gelu: return with_vectors<Out, Activation::gelu>(e);
    case Activation::gelu_tanh: return with_vectors<Out, Activation::gelu_tanh>(e);
    case Activation::silu: return with_vectors<Out, Activation::silu>(e);
    }
    return nullptr;
}

Apply* with_type(const Epilogue& e) {
    switch (e.type) {
    case DType::s8: return with_activation<int8_t>(e);
    case DType::u8: return with_activation<uint8_t>(e);
    case DType::f32: return with_activation<float>(e);
    case DType::bf16: return with_activation<uint16_t>(e);
    }
    return nullptr;
}

} // namespace

void apply_epilogue(const int32_t* acc, int64_t rows, int64_t columns, const Epilogue& e, void* out,
                    int64_t out_stride) {
    with_type(e)(acc, rows, columns, e, out, out_stride);
}

} // namespace acl_qlinear
