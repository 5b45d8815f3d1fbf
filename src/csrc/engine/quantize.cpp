// SPDX-License-Identifier: MIT
#include "engine/quantize.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/floats.h"

namespace acl_qlinear {
namespace {

constexpr size_t kStep = 16;

struct Vectors {
    float32x4_t v[4];
};

template <typename T> Vectors load16(const T* x) {
    return {{load4(x), load4(x + 4), load4(x + 8), load4(x + 12)}};
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

template <typename T> void quantize_all(const T* x, size_t count, const RowQuantization& q, int8_t* out) {
    const float32x4_t inverse_scale = vdupq_n_f32(q.inverse_scale);
    const int16x8_t zero_point = vdupq_n_s16(static_cast<int16_t>(q.zero_point));
    size_t i = 0;
    for (; i + kStep <= count; i += kStep) {
        vst1q_s8(out + i, quantize16(load16(x + i), inverse_scale, zero_point));
    }
    if (i < count) {
        T last[kStep] = {};
        std::memcpy(last, x + i, (count - i) * sizeof(T));
        vst1q_s8(out + i, quantize16(load16(last), inverse_scale, zero_point));
    }
}

// vminq and vmaxq return NaN where either operand is.
template <typename T> Range range_of_all(const T* x, size_t count) {
    T first[kStep];
    // Fewer values than a vector: the first one stands in for the missing.
    for (size_t i = 0; i < kStep; ++i) {
        first[i] = x[i < count ? i : 0];
    }
    // The last values, some of which may be there twice.
    const Vectors last = load16(count > kStep ? x + count - kStep : first);
    Vectors lowest = last, highest = last;
    for (size_t i = 0; i + kStep <= count; i += kStep) {
        const Vectors values = load16(x + i);
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

void quantize(DType type, const void* x, size_t count, const RowQuantization& q, int8_t* out) {
    with_floats(type, x, [&](const auto* values) { quantize_all(values, count, q, out); });
}

Range range_of(DType type, const void* x, size_t count) {
    if (count == 0) {
        return {0, 0};
    }
    return with_floats(type, x, [count](const auto* values) { return range_of_all(values, count); });
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
