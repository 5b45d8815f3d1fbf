// SPDX-License-Identifier: MIT
#include "engine/add.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine/errors.h"
#include "engine/narrow.h"
#include "kernels/integers.h"

namespace acl_qlinear {
namespace {

constexpr int64_t kAtOnce = 16;

// Multiply-accumulates in the time of one element, 0.66 modelled cycles of a Neoverse V1.
constexpr int64_t kWork = 85;

// 16 integers, of each type.
inline int8x16_t load(const int8_t* x) {
    return vld1q_s8(x);
}
inline uint8x16_t load(const uint8_t* x) {
    return vld1q_u8(x);
}
inline int8x16_t all_equal(int32_t value, int8_t /*type*/) {
    return vdupq_n_s8(static_cast<int8_t>(value));
}
inline uint8x16_t all_equal(int32_t value, uint8_t /*type*/) {
    return vdupq_n_u8(static_cast<uint8_t>(value));
}
inline int16x8x2_t difference(int8x16_t a, int8x16_t b) {
    return {{vsubl_s8(vget_low_s8(a), vget_low_s8(b)), vsubl_high_s8(a, b)}};
}
inline int16x8x2_t difference(uint8x16_t a, uint8x16_t b) {
    return {
        {vreinterpretq_s16_u16(vsubl_u8(vget_low_u8(a), vget_low_u8(b))), vreinterpretq_s16_u16(vsubl_high_u8(a, b))}};
}

// How the integers of one operand become fp32, and what they are multiplied by.
template <typename T> struct Terms {
    decltype(load(static_cast<const T*>(nullptr))) zero_point;
    float32x4_t multiplier;

    Terms(const Quantization& q, double output_scale)
        : zero_point(all_equal(q.zero_point, T{})),
          multiplier(vdupq_n_f32(static_cast<float>(q.scale / output_scale))) {}

    float32x4x4_t without_zero_point(const T* x) const {
        const int16x8x2_t values = difference(load(x), zero_point);
        float32x4x4_t result;
        for (int i = 0; i < 2; ++i) {
            result.val[2 * i] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(values.val[i])));
            result.val[2 * i + 1] = vcvtq_f32_s32(vmovl_high_s16(values.val[i]));
        }
        return result;
    }
};

template <typename T> class Adder {
public:
    explicit Adder(const AddCall& call)
        : a_(call.a.quantization, call.y.quantization.scale), b_(call.b.quantization, call.y.quantization.scale),
          zero_point_(vdupq_n_s16(static_cast<int16_t>(call.y.quantization.zero_point))),
          lowest_(call.relu ? zero_point_ : vdupq_n_s16(INT16_MIN)) {}

    void add16(const T* a, const T* b, T* y) const {
        const float32x4x4_t left = a_.without_zero_point(a), right = b_.without_zero_point(b);
        int32x4_t rounded[4];
        for (int i = 0; i < 4; ++i) {
            const float32x4_t product = vmulq_f32(right.val[i], b_.multiplier);
            rounded[i] = vcvtnq_s32_f32(vfmaq_f32(product, left.val[i], a_.multiplier));
        }
        store(y, shifted(rounded[0], rounded[1]), shifted(rounded[2], rounded[3]));
    }

private:
    // With the zero point, saturated to 16 bits.
    int16x8_t shifted(int32x4_t low, int32x4_t high) const {
        return vmaxq_s16(vqaddq_s16(vqmovn_high_s32(vqmovn_s32(low), high), zero_point_), lowest_);
    }

    Terms<T> a_, b_;
    int16x8_t zero_point_, lowest_;
};

template <typename T> void add_range(const AddCall& call, int64_t begin, int64_t end) {
    const Adder<T> adder(call);
    const auto *const a = static_cast<const T*>(call.a.data), *const b = static_cast<const T*>(call.b.data);
    auto* const y = static_cast<T*>(call.y.data);
    int64_t i = begin;
    for (; i + kAtOnce <= end; i += kAtOnce) {
        adder.add16(a + i, b + i, y + i);
    }
    if (const auto rest = static_cast<size_t>(end - i)) {
        T last_a[kAtOnce] = {}, last_b[kAtOnce] = {}, last_y[kAtOnce];
        std::memcpy(last_a, a + i, rest);
        std::memcpy(last_b, b + i, rest);
        adder.add16(last_a, last_b, last_y);
        std::memcpy(y + i, last_y, rest);
    }
}

void check_quotient(const Quantization& input, const Quantization& output) {
    if (!std::isnormal(static_cast<float>(input.scale / output.scale))) {
        refuse("input scale / output scale",
               "the input scale is " + text(input.scale) + ", the output scale " + text(output.scale));
    }
}

} // namespace

void add(const AddCall& call, const Parallel& parallel) {
    check_quotient(call.a.quantization, call.y.quantization);
    check_quotient(call.b.quantization, call.y.quantization);
    const int64_t parts = std::clamp<int64_t>(call.count * kWork / parallel.grain, 1, parallel.num_threads);
    const int64_t size = round_up(ceil_div(call.count, parts), kAtOnce);
    const auto add_parts = [&call, size](int64_t begin, int64_t end) {
        const int64_t first = std::min(begin * size, call.count), last = std::min(end * size, call.count);
        call.y.type == DType::u8 ? add_range<uint8_t>(call, first, last) : add_range<int8_t>(call, first, last);
    };
    if (parts == 1) {
        add_parts(0, 1);
    } else {
        parallel.parallel_for(parts, add_parts);
    }
}

} // namespace acl_qlinear
