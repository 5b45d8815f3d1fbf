// SPDX-License-Identifier: MIT
// Quantization of activations, and their range.
#include <gtest/gtest.h>

#include <memory>

#include "engine/quantize.h"
#include "kernels/integers.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::Guarded;
using testing::Random;

// The types of floats; googletest takes no __fp16 itself.
struct Fp32 {
    static constexpr DType type = DType::f32;
    using Value = float;
    static float load(float x) { return x; }
    static float store(float x) { return x; }
};
struct Bf16 {
    static constexpr DType type = DType::bf16;
    using Value = uint16_t;
    static float load(uint16_t x) { return testing::float_of_bf16(x); }
    static uint16_t store(float x) { return testing::bf16_of_float(x); }
};
struct Fp16 {
    static constexpr DType type = DType::f16;
    using Value = __fp16;
    static float load(__fp16 x) { return x; }
    static __fp16 store(float x) { return static_cast<__fp16>(x); }
};

template <typename T> class Quantize : public ::testing::Test {};
using Types = ::testing::Types<Fp32, Bf16, Fp16>;
TYPED_TEST_SUITE(Quantize, Types);

// A pre-scale for `count` values, readable as far as one of a packed weight; or none.
std::unique_ptr<Guarded<float>> random_pre_scale(size_t count, Random& random) {
    if (random.integer(0, 1)) {
        return nullptr;
    }
    auto all = std::make_unique<Guarded<float>>(round_up(count, kFloatsAtOnce));
    std::generate_n(all->begin(), count, [&] { return static_cast<float>(random.real(-2, 2)); });
    return all;
}

TYPED_TEST(Quantize, EveryCount) {
    Random random(8);
    for (size_t count = 1; count <= 140; ++count) {
        const auto pre_scale = random_pre_scale(count, random);
        Guarded<typename TypeParam::Value> x(count);
        for (typename TypeParam::Value& value : x) {
            value = TypeParam::store(static_cast<float>(random.real(-2, 2)));
        }
        const RowQuantization q{0, static_cast<float>(random.real(10, 200)),
                                static_cast<int32_t>(random.integer(-128, 127))};
        Guarded<int8_t> result(round_up(count, kFloatsAtOnce));
        quantize({TypeParam::type, x.data(), count, pre_scale ? pre_scale->data() : nullptr}, q, result.data());
        for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
            const float value = TypeParam::load(x[i]) * (pre_scale ? (*pre_scale)[i] : 1);
            const int64_t expected = testing::rounded(value * q.inverse_scale) + q.zero_point;
            EXPECT_EQ(result[i], testing::saturated<int8_t>(expected)) << TypeParam::load(x[i]);
        }
    }
}

TYPED_TEST(Quantize, TiesAndExtremes) {
    const float special[] = {0.5f,    1.5f,    2.5f,     -0.5f, -1.5f,  -2.5f,    126.5f,    127.5f, -127.5f,
                             -128.5f, 1000.0f, -1000.0f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN,    -0.0f};
    const int8_t expected[] = {0, 2, 2, 0, -2, -2, 126, 127, -128, -128, 127, -128, 127, -128, 127, -128, 0, 0};
    Guarded<typename TypeParam::Value> x(std::size(special));
    std::transform(std::begin(special), std::end(special), x.begin(), TypeParam::store);
    Guarded<int8_t> result(round_up(x.size(), kFloatsAtOnce));
    quantize({TypeParam::type, x.data(), x.size(), nullptr}, {1, 1, 0}, result.data());
    for (int64_t i = 0; i < static_cast<int64_t>(x.size()); ++i) {
        EXPECT_EQ(result[i], expected[i]) << special[i];
    }
}

TYPED_TEST(Quantize, RangeOfEveryCount) {
    Random random(9);
    for (size_t count = 1; count <= 140; ++count) {
        const auto pre_scale = random_pre_scale(count, random);
        for (const int64_t nan : {int64_t{-1}, random.integer(0, static_cast<int64_t>(count) - 1)}) {
            Guarded<typename TypeParam::Value> x(count);
            float lowest = INFINITY, highest = -INFINITY;
            for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
                x[i] = TypeParam::store(static_cast<float>(random.real(-9, -1)));
                const float value = TypeParam::load(x[i]) * (pre_scale ? (*pre_scale)[i] : 1);
                lowest = std::fmin(lowest, value);
                highest = std::fmax(highest, value);
            }
            if (nan >= 0) {
                x[nan] = TypeParam::store(NAN);
            }
            const Range range = range_of({TypeParam::type, x.data(), count, pre_scale ? pre_scale->data() : nullptr});
            if (nan >= 0) {
                EXPECT_TRUE(std::isnan(range.lowest) && std::isnan(range.highest)) << count;
            } else {
                EXPECT_EQ(range.lowest, lowest);
                EXPECT_EQ(range.highest, highest);
            }
        }
    }
    const Range none = range_of({TypeParam::type, nullptr, 0, nullptr});
    EXPECT_EQ(none.lowest, 0);
    EXPECT_EQ(none.highest, 0);
}

// Tests of the Python package compare many with torchao's own.
TEST(RowQuantization, CoversTheRangeAndHas0) {
    struct {
        Range range;
        PerRow kind;
        float scale;
        int32_t zero_point;
    } const cases[] = {
        {{-3, 127.5f}, PerRow::symmetric, 1, 0},
        {{-255, 100}, PerRow::symmetric, 2, 0},
        {{-254, 100}, PerRow::narrow, 2, 0},
        {{-100, 155}, PerRow::asymmetric, 1, -28},
        {{-255, -5}, PerRow::asymmetric, 1, 127},
        {{3, 255}, PerRow::asymmetric, 1, -128},
        {{-2.5f, 252.5f}, PerRow::asymmetric, 1, -126},
        {{0, 0}, PerRow::symmetric, 0x1p-23f, 0},
        {{0, 0}, PerRow::narrow, 1e-5f, 0},
        {{0, 0}, PerRow::asymmetric, 0x1p-23f, -128},
        {{0, 1e-30f}, PerRow::symmetric, 0x1p-23f, 0},
        {{-1e-8f, 0}, PerRow::asymmetric, 0x1p-23f, -128},
    };
    for (const auto& [range, kind, scale, zero_point] : cases) {
        const RowQuantization q = choose_row_quantization(DType::f32, range, kind);
        EXPECT_EQ(q.scale, scale) << range.lowest << " to " << range.highest;
        EXPECT_EQ(q.inverse_scale, 1 / scale);
        EXPECT_EQ(q.zero_point, zero_point) << range.lowest << " to " << range.highest;
    }
}

TEST(RowQuantization, Bf16IsRoundedAtEachStep) {
    // 3 / 127.5 = 0.0235294, of which bf16 holds 0.023559570.
    EXPECT_EQ(choose_row_quantization(DType::f32, {-3, 1}, PerRow::symmetric).scale, 3 / 127.5f);
    EXPECT_EQ(choose_row_quantization(DType::bf16, {-3, 1}, PerRow::symmetric).scale, 0.0235595703125f);
    // 2.015625 - -0.0078125 = 2.0234375, halfway between two of bf16's numbers, becomes 2.03125 at once.
    EXPECT_EQ(choose_row_quantization(DType::bf16, {-0.0078125f, 2.015625f}, PerRow::asymmetric).scale,
              0.00799560546875f);
}

TEST(RowQuantization, Fp16IsRoundedAtEachStep) {
    EXPECT_EQ(choose_row_quantization(DType::f16, {-3, 1}, PerRow::symmetric).scale, 0.0235290527f);
    // The smallest scale of a narrow range, which fp16 holds as 168 of its smallest steps.
    EXPECT_EQ(choose_row_quantization(DType::f16, {0, 0}, PerRow::narrow).scale, 168 * 0x1p-24f);
}

TEST(RowQuantization, NanAndInfinityReachTheScale) {
    for (const PerRow kind : {PerRow::asymmetric, PerRow::symmetric, PerRow::narrow}) {
        for (const Range range :
             {Range{NAN, NAN}, Range{-INFINITY, 1}, Range{-1, INFINITY}, Range{-INFINITY, INFINITY}}) {
            const RowQuantization q = choose_row_quantization(DType::f32, range, kind);
            EXPECT_FALSE(std::isfinite(q.scale));
            EXPECT_TRUE(q.zero_point >= -128 && q.zero_point <= 127);
        }
    }
}

} // namespace
} // namespace acl_qlinear
