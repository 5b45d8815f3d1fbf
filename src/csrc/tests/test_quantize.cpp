// SPDX-License-Identifier: MIT
// Quantization of activations, and their range.
#include <gtest/gtest.h>

#include "engine/quantize.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::Guarded;
using testing::Random;

float value_of(const float& x) {
    return x;
}
float value_of(const uint16_t& x) {
    return testing::float_of_bf16(x);
}

template <typename T> constexpr DType kType = sizeof(T) == 4 ? DType::f32 : DType::bf16;

template <typename T> T value_as(float x) {
    if constexpr (sizeof(T) == 4) {
        return x;
    } else {
        return testing::bf16_of_float(x);
    }
}

template <typename T> class Quantize : public ::testing::Test {};
using Types = ::testing::Types<float, uint16_t>;
TYPED_TEST_SUITE(Quantize, Types);

TYPED_TEST(Quantize, EveryCount) {
    Random random(8);
    for (size_t count = 1; count <= 70; ++count) {
        Guarded<TypeParam> x(count);
        for (TypeParam& value : x) {
            value = value_as<TypeParam>(static_cast<float>(random.real(-2, 2)));
        }
        const Quantization q{random.real(0.005, 0.1), static_cast<int32_t>(random.integer(-128, 127))};
        const Input result = quantize({kType<TypeParam>, x.data(), q}, count);
        ASSERT_EQ(result.type, DType::s8);
        const float inverse = 1.0f / static_cast<float>(q.scale);
        for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) {
            const int64_t expected = testing::rounded(value_of(x[i]) * inverse) + q.zero_point;
            EXPECT_EQ(static_cast<const int8_t*>(result.data)[i], testing::saturated<int8_t>(expected))
                << value_of(x[i]);
        }
    }
}

TYPED_TEST(Quantize, TiesAndExtremes) {
    const float special[] = {0.5f,    1.5f,    2.5f,     -0.5f, -1.5f,  -2.5f,    126.5f,    127.5f, -127.5f,
                             -128.5f, 1000.0f, -1000.0f, 3e38f, -3e38f, INFINITY, -INFINITY, NAN,    -0.0f};
    const int8_t expected[] = {0, 2, 2, 0, -2, -2, 126, 127, -128, -128, 127, -128, 127, -128, 127, -128, 0, 0};
    Guarded<TypeParam> x(std::size(special));
    std::transform(std::begin(special), std::end(special), x.begin(), value_as<TypeParam>);
    const Input result = quantize({kType<TypeParam>, x.data(), {1.0, 0}}, x.size());
    for (size_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ(static_cast<const int8_t*>(result.data)[i], expected[i]) << special[i];
    }
}

TYPED_TEST(Quantize, RangeOfEveryCount) {
    Random random(9);
    for (size_t count = 1; count <= 70; ++count) {
        for (const int64_t nan : {int64_t{-1}, random.integer(0, static_cast<int64_t>(count) - 1)}) {
            Guarded<TypeParam> x(count);
            float lowest = INFINITY, highest = -INFINITY;
            for (TypeParam& value : x) {
                value = value_as<TypeParam>(static_cast<float>(random.real(-9, -1)));
                lowest = std::fmin(lowest, value_of(value));
                highest = std::fmax(highest, value_of(value));
            }
            if (nan >= 0) {
                x[nan] = value_as<TypeParam>(NAN);
            }
            const Range range = range_of(kType<TypeParam>, x.data(), count);
            if (nan >= 0) {
                EXPECT_TRUE(std::isnan(range.lowest) && std::isnan(range.highest)) << count;
            } else {
                EXPECT_EQ(range.lowest, lowest);
                EXPECT_EQ(range.highest, highest);
            }
        }
    }
    const Range none = range_of(kType<TypeParam>, nullptr, 0);
    EXPECT_EQ(none.lowest, 0);
    EXPECT_EQ(none.highest, 0);
}

} // namespace
} // namespace acl_qlinear
