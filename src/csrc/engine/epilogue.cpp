// SPDX-License-Identifier: MIT
#include "engine/epilogue.h"

#include <arm_neon.h>

#include <cstring>

#include "engine/activation.h"
#include "engine/floats.h"
#include "engine/narrow.h"

namespace acl_qlinear {
namespace {

// Columns at a time: kVectors vectors, of one panel or of two; panels have whole vectors.
constexpr int64_t kVector = 4;
constexpr int kVectors = kEpilogueColumns / kVector;

// Adding 1.5 * 2^23 to a value below 2^22 leaves its nearest integer, ties to
// even, in the low bits of the fp32 pattern. In one fused multiply-add this
// rounds the exact product of sum and multiplier; the saturating subtraction keeps larger values on
// their side.
constexpr float kRounder = 12582912.0f;

// What a call needs for kEpilogueColumns columns. Inlined, so that it stays in registers for all of their rows.
template <bool by_row, bool has_offset, bool has_bias> struct Columns {
    int32x4_t offset[kVectors];
    float32x4_t multiplier[kVectors];
    const float* bias;
    int16x8_t zero_point;
    float32x4_t inverse_scale, negative_slope;
    const RowQuantization* next_row;
    float row_scale = 1;
    uint32_t row_zero_point = 0;

    [[gnu::always_inline]] Columns(const Epilogue& e, int64_t n)
        : bias(e.bias + (has_bias ? n : 0)), zero_point(vdupq_n_s16(static_cast<int16_t>(e.zero_point))),
          inverse_scale(vdupq_n_f32(e.inverse_scale)), negative_slope(vdupq_n_f32(e.post.negative_slope)),
          next_row(e.rows) {
        for (int i = 0; i < kVectors; ++i) {
            offset[i] = has_offset ? vld1q_s32(e.offset + n + kVector * i) : vdupq_n_s32(0);
            multiplier[i] = vld1q_f32(e.multiplier + n + kVector * i);
        }
    }

    [[gnu::always_inline]] void begin_row() {
        // A multiply-add overwrites its addend: loading it for each row is free beside the arithmetic, copying it
        // from a register is not.
        asm("" : "+r"(bias));
        if constexpr (by_row) {
            row_scale = next_row->scale;
            row_zero_point = static_cast<uint32_t>(next_row->zero_point);
            ++next_row;
        }
    }

    [[gnu::always_inline]] float32x4_t sum(const int32_t* acc, int i) const {
        // Unsigned, since beyond the last column all may be anything, and overflow.
        uint32x4_t values = vreinterpretq_u32_s32(vld1q_s32(acc));
        const uint32x4_t offsets = vreinterpretq_u32_s32(offset[i]);
        if constexpr (has_offset) {
            values = by_row ? vmlsq_n_u32(values, offsets, row_zero_point) : vaddq_u32(values, offsets);
        }
        const float32x4_t sum = vcvtq_f32_s32(vreinterpretq_s32_u32(values));
        return by_row ? vmulq_n_f32(sum, row_scale) : sum;
    }

    // The columns of vector i, whose sums are at `acc`, before the output's type.
    template <Activation activation> [[gnu::always_inline]] float32x4_t value(float32x4_t product, int i) const {
        if constexpr (has_bias) {
            const float32x4_t linear = vfmaq_f32(vld1q_f32(bias + kVector * i), product, multiplier[i]);
            return activate<activation>(linear, negative_slope);
        } else {
            return activate<activation>(vmulq_f32(product, multiplier[i]), negative_slope);
        }
    }

    // ReLU of integers is in `shifted`.
    template <Activation activation> [[gnu::always_inline]] int32x4_t rounded(const int32_t* acc, int i) const {
        if constexpr (activation == Activation::relu) {
            return rounded<Activation::none>(acc, i);
        } else if constexpr (activation != Activation::none) {
            return vcvtnq_s32_f32(vmulq_f32(value<activation>(sum(acc, i), i), inverse_scale));
        } else if constexpr (has_bias) {
            return vcvtnq_s32_f32(value<activation>(sum(acc, i), i));
        } else {
            const float32x4_t rounder = vdupq_n_f32(kRounder);
            const float32x4_t bits = vfmaq_f32(rounder, sum(acc, i), multiplier[i]);
            return vqsubq_s32(vreinterpretq_s32_f32(bits), vreinterpretq_s32_f32(rounder));
        }
    }

    // Vectors i and i + 1 with the zero point, saturated to 16 bits.
    template <Activation activation> [[gnu::always_inline]] int16x8_t shifted(const int32_t* const* acc, int i) const {
        const int16x4_t low = vqmovn_s32(rounded<activation>(acc[i], i));
        const int16x8_t all = vqaddq_s16(vqmovn_high_s32(low, rounded<activation>(acc[i + 1], i + 1)), zero_point);
        return activation == Activation::relu ? vmaxq_s16(all, zero_point) : all;
    }
};

// Out is int8_t, uint8_t, or a type of floats.
template <typename Out, bool by_row, bool has_offset, bool has_bias, Activation activation>
void apply_to_all(const Accumulators& acc, int64_t rows, int64_t columns, const Epilogue& e, void* out,
                  int64_t stride) {
    using Block = Columns<by_row, has_offset, has_bias>;
    const auto apply = [](const Block& c, const int32_t* const* from, Out* to) {
        if constexpr (sizeof(Out) == 1) {
            store(to, c.template shifted<activation>(from, 0), c.template shifted<activation>(from, 2));
        } else {
            float32x4_t values[kVectors];
            for (int i = 0; i < kVectors; ++i) {
                values[i] = c.sum(from[i], i);
            }
            for (int i = 0; i < kVectors; ++i) {
                values[i] = c.template value<activation>(values[i], i);
            }
            for (int i = 0; i < kVectors; ++i) {
                store4(to + kVector * i, values[i]);
            }
        }
    };
    const int64_t width = acc.panel_columns;
    for (int64_t n = 0; n < columns; n += kEpilogueColumns) {
        Block c(e, n);
        const int32_t* from[kVectors];
        for (int i = 0; i < kVectors; ++i) {
            const int64_t column = n + kVector * i;
            from[i] = acc.values + column / width * width * acc.rows + column % width;
        }
        Out* to = static_cast<Out*>(out) + n;
        const auto next_row = [&] {
            for (const int32_t*& vector : from) {
                vector += width;
            }
            to += stride;
        };
        if (n + kEpilogueColumns <= columns) {
            for (int64_t m = 0; m < rows; ++m, next_row()) {
                c.begin_row();
                apply(c, from, to);
            }
        } else {
            for (int64_t m = 0; m < rows; ++m, next_row()) {
                Out last[kEpilogueColumns];
                c.begin_row();
                apply(c, from, last);
                std::memcpy(to, last, static_cast<size_t>(columns - n) * sizeof(Out));
            }
        }
    }
}

using Apply = void(const Accumulators&, int64_t, int64_t, const Epilogue&, void*, int64_t);

template <typename Out, Activation activation, bool by_row, bool has_offset> Apply* with_bias(const Epilogue& e) {
    return e.bias ? apply_to_all<Out, by_row, has_offset, true, activation>
                  : apply_to_all<Out, by_row, has_offset, false, activation>;
}

template <typename Out, Activation activation, bool by_row> Apply* with_offset(const Epilogue& e) {
    return e.offset ? with_bias<Out, activation, by_row, true>(e) : with_bias<Out, activation, by_row, false>(e);
}

template <typename Out, Activation activation> Apply* with_vectors(const Epilogue& e) {
    if constexpr (sizeof(Out) > 1) {
        if (e.rows) {
            return with_offset<Out, activation, true>(e);
        }
    }
    return with_offset<Out, activation, false>(e);
}

template <typename Out> Apply* with_activation(const Epilogue& e) {
    switch (e.post.activation) {
    case Activation::none: return with_vectors<Out, Activation::none>(e);
    case Activation::relu: return with_vectors<Out, Activation::relu>(e);
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
    case DType::f16: return with_activation<__fp16>(e);
    }
    return nullptr;
}

} // namespace

void apply_epilogue(const Accumulators& acc, int64_t rows, int64_t columns, const Epilogue& e, void* out,
                    int64_t out_stride) {
    with_type(e)(acc, rows, columns, e, out, out_stride);
}

} // namespace acl_qlinear
