// SPDX-License-Identifier: MIT
// From accumulators to outputs, bit for bit.
#include <gtest/gtest.h>

#include "engine/epilogue.h"
#include "kernels/integers.h"
#include "tests/reference.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::Guarded;
using testing::Random;

constexpr DType kTypes[] = {DType::s8, DType::u8, DType::f32, DType::bf16, DType::f16};
constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::leaky_relu,
                                       Activation::tanh, Activation::gelu, Activation::gelu_tanh,
                                       Activation::silu};

// Some accumulators with their terms, each of which ends where it may be read to.
struct Block {
    int64_t rows, columns, width;
    Guarded<int32_t> acc, offset;
    Guarded<float> multiplier, bias;
    Guarded<RowQuantization> quantizations;
    bool has_offset = false, has_bias = false, by_row = false;

    Block(int64_t row_count, int64_t column_count, int64_t panel_columns)
        : rows(row_count), columns(column_count), width(panel_columns),
          acc(static_cast<size_t>(round_up(round_up(columns, kEpilogueColumns), width) * rows)), offset(readable()),
          multiplier(readable()), bias(readable()), quantizations(static_cast<size_t>(rows)) {}

    void fill(Random& random) {
        for (RowQuantization& row : quantizations) {
            row = {static_cast<float>(std::exp2(random.real(-9, 2))), 0,
                   static_cast<int32_t>(random.integer(-128, 127))};
        }
        for (int32_t& value : acc) {
            value = static_cast<int32_t>(random.integer(-20000, 20000));
        }
        for (int64_t n = 0; n < static_cast<int64_t>(readable()); ++n) {
            offset[n] = static_cast<int32_t>(random.integer(-5000, 5000));
            multiplier[n] = static_cast<float>(std::exp2(random.real(-16, -5)));
            bias[n] = static_cast<float>(random.real(-30, 30));
        }
    }

    size_t readable() const { return static_cast<size_t>(columns + kEpilogueColumns - 1); }
    int32_t& at(int64_t m, int64_t n) { return acc[(n / width * rows + m) * width + n % width]; }

    Epilogue epilogue(DType type) const {
        Epilogue e{};
        e.offset = has_offset ? offset.data() : nullptr;
        e.multiplier = multiplier.data();
        e.bias = has_bias ? bias.data() : nullptr;
        e.post = {Activation::none, 0.0f};
        e.type = type;
        e.inverse_scale = 1;
        e.rows = by_row ? quantizations.data() : nullptr;
        return e;
    }

    // Compares all outputs, which lie `stride` apart, and what is between them.
    void check(const Epilogue& e, int64_t stride) {
        const size_t size = size_of(e.type);
        Guarded<char> out(static_cast<size_t>((rows - 1) * stride + columns) * size, size);
        std::fill(out.begin(), out.end(), char{0x5a});
        apply_epilogue({acc.data(), rows, width}, rows, columns, e, out.data(), stride);
        int wrong = 0, overwritten = 0;
        for (int64_t m = 0; m < rows; ++m) {
            for (int64_t n = 0; n < columns; ++n) {
                wrong +=
                    testing::bits_of(e.type, out.data(), m * stride + n) != testing::expected_bits(at(m, n), e, m, n);
            }
            for (int64_t n = columns; m + 1 < rows && n < stride; ++n) {
                overwritten += testing::bits_of(e.type, out.data(), m * stride + n) != (0x5a5a5a5aU >> (32 - 8 * size));
            }
        }
        EXPECT_EQ(wrong, 0) << describe(e);
        EXPECT_EQ(overwritten, 0) << describe(e);
    }

    std::string describe(const Epilogue& e) const {
        const auto text = [](auto value) { return std::to_string(static_cast<int>(value)); };
        return "type " + text(e.type) + ", activation " + text(e.post.activation) + ", offset " + text(has_offset) +
               ", by row " + text(by_row) + ", bias " + text(has_bias) + ", rows " + text(rows) + ", columns " +
               text(columns) + ", panels of " + text(width);
    }
};

TEST(Epilogue, EveryTypeAndActivation) {
    Random random(6);
    for (const DType type : kTypes) {
        for (const Activation activation : kActivations) {
            for (int i = 0; i < 32; ++i) {
                Block block(random.integer(1, 9), random.integer(1, 70), random.one_of<int64_t>({4, 12, 24, 36, 48}));
                block.has_offset = i & 1;
                block.has_bias = i & 2;
                block.by_row = i & 4 && !is_8bit(type);
                block.fill(random);
                Epilogue e = block.epilogue(type);
                e.post = {activation, static_cast<float>(random.real(-0.5, 2))};
                if (is_8bit(type)) {
                    e.zero_point = static_cast<int32_t>(random.integer(0, 255)) - (type == DType::s8 ? 128 : 0);
                    e.inverse_scale = is_homogeneous(activation) ? 1.0f : static_cast<float>(random.real(0.5, 20));
                }
                block.check(e, block.columns + random.integer(0, 20));
            }
        }
    }
}

TEST(Epilogue, TiesGoToEven) {
    for (const DType type : {DType::s8, DType::u8}) {
        for (const bool has_bias : {false, true}) {
            Block block(1, 64, 12);
            block.has_bias = has_bias;
            for (int64_t n = 0; n < 64; ++n) {
                block.at(0, n) = static_cast<int32_t>(2 * n - 63); // odd, halved below
                block.multiplier[n] = 0.5f;
                block.bias[n] = 4;
            }
            Epilogue e = block.epilogue(type);
            e.zero_point = 40;
            Guarded<uint8_t> out(64);
            apply_epilogue({block.acc.data(), 1, 12}, 1, 64, e, out.data(), 64);
            for (int64_t n = 0; n < 64; ++n) {
                const int64_t twice = 2 * n - 63 + (has_bias ? 8 : 0);
                // One of both neighbours is even.
                const int64_t below = (twice - 1) / 2, even = below % 2 == 0 ? below : below + 1;
                EXPECT_EQ(static_cast<int8_t>(out[n]), static_cast<int8_t>(even + 40)) << "2 v = " << twice;
            }
            block.check(e, 64);
        }
    }
}

// One rounding of the exact product, where fp32 would need two.
TEST(Epilogue, ProductIsRoundedOnce) {
    Block block(1, 1, 4);
    Random random(7);
    for (int i = 0; i < 20000; ++i) {
        // Close to a half: sum * multiplier = half + a little, of either sign.
        const int64_t sum = random.integer(1 << 20, (1 << 24) - 1), half = 2 * random.integer(-100, 100) + 1;
        block.at(0, 0) = static_cast<int32_t>(sum);
        block.multiplier[0] = static_cast<float>(static_cast<double>(half) / 2 / static_cast<double>(sum));
        block.check(block.epilogue(i % 2 ? DType::s8 : DType::u8), 1);
    }
}

TEST(Epilogue, SaturatesAtBothEnds) {
    constexpr int32_t sums[] = {
        INT32_MIN, INT32_MIN + 1, -(1 << 24), -70000, -300, -129,  -128,    -127,          -1,       0, 1,
        127,       128,           255,        256,    300,  70000, 1 << 24, INT32_MAX - 1, INT32_MAX};
    for (const DType type : {DType::s8, DType::u8}) {
        for (const int32_t zero_point :
             type == DType::s8 ? std::vector{-128, -1, 0, 127} : std::vector{0, 1, 128, 255}) {
            for (const float multiplier : {1.0f, 0.5f, 1e-3f, 1e3f, 1e30f}) {
                for (const Activation activation : {Activation::none, Activation::relu, Activation::leaky_relu}) {
                    for (const bool has_bias : {false, true}) {
                        Block block(1, std::size(sums), 12);
                        block.has_bias = has_bias;
                        for (int64_t n = 0; n < block.columns; ++n) {
                            block.at(0, n) = sums[n];
                            block.multiplier[n] = multiplier;
                            block.bias[n] = 0.25f;
                        }
                        Epilogue e = block.epilogue(type);
                        e.post = {activation, 0.5f};
                        e.zero_point = zero_point;
                        block.check(e, block.columns);
                    }
                }
            }
        }
    }
}

TEST(Epilogue, Bf16IsRoundedToNearestTiesToEven) {
    // All 2^16 tails of an fp32 number's last places, on a few of its leading ones, through the bias.
    Block block(1, 64, 48);
    block.has_bias = true;
    const Epilogue e = block.epilogue(DType::bf16);
    for (const uint32_t upper : {0x3f80U, 0x3f81U, 0xbf7fU, 0x7f7fU, 0x0000U, 0x0080U}) {
        for (uint32_t tail = 0; tail < 0x10000; tail += 64) {
            for (uint32_t n = 0; n < 64; ++n) {
                const uint32_t bits = upper << 16 | (tail + n);
                std::memcpy(&block.bias[n], &bits, sizeof bits);
            }
            block.check(e, 64);
        }
    }
    block.bias[0] = NAN;
    block.bias[1] = INFINITY;
    block.bias[2] = -INFINITY;
    Guarded<uint16_t> out(64);
    apply_epilogue({block.acc.data(), 1, 48}, 1, 64, e, out.data(), 64);
    EXPECT_TRUE(std::isnan(testing::float_of_bf16(out[0])));
    EXPECT_EQ(testing::float_of_bf16(out[1]), INFINITY);
    EXPECT_EQ(testing::float_of_bf16(out[2]), -INFINITY);
}

} // namespace
} // namespace acl_qlinear
