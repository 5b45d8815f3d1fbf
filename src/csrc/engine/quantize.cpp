// SPDX-License-Identifier: MIT
#include "engine/quantize.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "engine/floats.h"

namespace acl_qlinear {
namespace {

struct Vectors {
    float32x4_t v[4];
};

// Floats as they are.
template <typename T> struct Plain {
    const T* x;

    Vectors load(size_t i) const { return {{load4(x + i), load4(x + i + 4), load4(x + i + 8), load4(x + i + 12)}}; }

    // The same values, but as many as fit into a vector: from `begin` on, and the first one for those beyond `count`.
    template <typename Body> auto with_few(size_t begin, size_t count, const Body& body) const {
        T few[kFloatsAtOnce];
        for (size_t i = 0; i < kFloatsAtOnce; ++i) {
            few[i] = x[begin + i < count ? begin + i : begin];
        }
        return body(Plain<T>{few});
    }
};

// Each times a value of its own.
template <typename T> struct Scaled {
    Plain<T> plain;
    const float* scale;

    Vectors load(size_t i) const {
        Vectors values = plain.load(i);
        for (int j = 0; j < 4; ++j) {
            values.v[j] = vmulq_f32(values.v[j], vld1q_f32(scale + i + 4 * j));
        }
        return values;
    }

    template <typename Body> auto with_few(size_t begin, size_t count, const Body& body) const {
        return Plain<float>{scale}.with_few(begin, count, [&](const auto& scales) {
            return plain.with_few(begin, count, [&](const auto& values) { return body(Scaled<T>{values, scales.x}); });
        });
    }
};

// Calls `body` with floats of a type that is known when it is compiled.
template <typename Body> auto with_source(const Floats& floats, const Body& body) {
    return with_floats(floats.type, floats.x, [&](const auto* x) {
        using T = std::remove_const_t<std::remove_pointer_t<decltype(x)>>;
        const Plain<T> plain{x};
        return floats.pre_scale ? body(Scaled<T>{plain, floats.pre_scale}) : body(plain);
    });
}

inline int8x16_t quantize16(const Vectors& x, float32x4_t inverse_scale, int16x8_t zero_point) {
    int32x4_t q[4];
    for (int i = 0; i < 4; ++i) {
        q[i] = vcvtnq_s32_f32(vmulq_f32(x.v[i], inverse_scale));
    }
    const int16x8_t low = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(q[0]), q[1]), zero_point);
    const int16x8_t high = vqaddq_s16(vqmovn_high_s32(vqmovn_s32(q[2]), q[3]), zero_point);
    return vqmovn_high_s16(vqmovn_s16(low), high);
}

template <typename Source> void quantize_all(const Source& x, size_t count, const RowQuantization& q, int8_t* out) {
    const float32x4_t inverse_scale = vdupq_n_f32(q.inverse_scale);
    const int16x8_t zero_point = vdupq_n_s16(static_cast<int16_t>(q.zero_point));
    size_t i = 0;
    for (; i + kFloatsAtOnce <= count; i += kFloatsAtOnce) {
        vst1q_s8(out + i, quantize16(x.load(i), inverse_scale, zero_point));
    }
    if (i < count) {
        x.with_few(i, count,
                   [&](const auto& last) { vst1q_s8(out + i, quantize16(last.load(0), inverse_scale, zero_point)); });
    }
}

// vminq and vmaxq return NaN where either operand is.
template <typename Source> Range range_of_all(const Source& x, size_t count) {
    // The last values, some of which may be there twice.
    const Vectors last = count > kFloatsAtOnce ? x.load(count - kFloatsAtOnce)
                                               : x.with_few(0, count, [](const auto& first) { return first.load(0); });
    Vectors lowest = last, highest = last;
    for (size_t i = 0; i + kFloatsAtOnce <= count; i += kFloatsAtOnce) {
        const Vectors values = x.load(i);
        for (int j = 0; j < 4; ++j) {
            lowest.v[j] = vminq_f32(lowest.v[j], values.v[j]);
            highest.v[j] = vmaxq_f32(highest.v[j], values.v[j]);
        }
    }
    const auto low = vminq_f32(vminq_f32(lowest.v[0], lowest.v[1]), vminq_f32(lowest.v[2], lowest.v[3]));
    const auto high = vmaxq_f32(vmaxq_f32(highest.v[0], highest.v[1]), vmaxq_f32(highest.v[2], highest.v[3]));
    return {vminvq_f32(low), vmaxvq_f32(high)};
}

} // namespace

void quantize(const Floats& floats, const RowQuantization& q, int8_t* out) {
    with_source(floats, [&](const auto& source) { quantize_all(source, floats.count, q, out); });
}

Range range_of(const Floats& floats) {
    if (floats.count == 0) {
        return {0, 0};
    }
    return with_source(floats, [&](const auto& source) { return range_of_all(source, floats.count); });
}

Quantization choose_quantization(const Range& range, bool reduce_range) {
    // Smaller ones are not normal numbers in fp16.
    constexpr float smallest_scale = 6.1e-5F;
    const int highest = reduce_range ? 127 : 255;
    float low = std::min(range.lowest, 0.0F), high = std::max(range.highest, 0.0F);
    double scale = (static_cast<double>(high) - low) / highest;
    if (static_cast<float>(scale) == 0.0F || std::isinf(1.0F / static_cast<float>(scale))) {
        scale = 0.1;
    }
    if (scale < smallest_scale) {
        const float amplifier = smallest_scale / static_cast<float>(scale);
        if (low == 0.0F) {
            high = smallest_scale * static_cast<float>(highest);
        } else if (high == 0.0F) {
            low = -smallest_scale * static_cast<float>(highest);
        } else {
            low *= amplifier;
            high *= amplifier;
        }
        scale = smallest_scale;
    }
    // From the end of the range whose terms are smaller, and so their rounding errors.
    const double from_low = -low / scale, from_high = highest - high / scale;
    const bool low_is_nearer = -std::abs(low / scale) < highest - std::abs(high / scale);
    const double zero_point = low_is_nearer ? from_low : from_high;
    return {scale, static_cast<int32_t>(std::nearbyint(std::clamp(zero_point, 0.0, static_cast<double>(highest))))};
}

RowQuantization choose_row_quantization(DType type, const Range& range, PerRow kind) {
    constexpr float smallest_scale = std::numeric_limits<float>::epsilon();
    const auto in_type = [type](float value) { return rounded_to(type, value); };
    // NaN stays NaN where it is the first argument.
    const float low = std::min(range.lowest, 0.0F), high = std::max(range.highest, 0.0F);
    if (kind != PerRow::asymmetric) {
        const bool is_narrow = kind == PerRow::narrow;
        const float scale = std::max(in_type(std::max(-low, high) / (is_narrow ? 127.0F : 127.5F)),
                                     is_narrow ? in_type(1e-5F) : smallest_scale);
        return {scale, 1 / scale, 0};
    }
    const float scale = std::max(in_type(in_type(high - low) / 255), smallest_scale), steps = in_type(low / scale);
    const float zero_point = std::isfinite(steps) ? std::clamp(-128 - std::nearbyint(steps), -128.0F, 127.0F) : 0;
    return {scale, 1 / scale, static_cast<int32_t>(zero_point)};
}

} // namespace acl_qlinear
