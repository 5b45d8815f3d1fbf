// SPDX-License-Identifier: MIT
// Sums of 8-bit tensors, against the arithmetic that is promised.
#include <gtest/gtest.h>

#include <algorithm>
#include <type_traits>

#include "engine/add.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::Guarded;
using testing::Random;

// One part after the other.
void in_ranges(int64_t count, RangeFunction f) {
    for (int64_t i = 0; i < count; ++i) {
        f(i, i + 1);
    }
}

constexpr Parallel kOneThread{1, 640000, in_ranges};

template <typename T> class Add : public ::testing::Test {
protected:
    static constexpr DType type = std::is_signed_v<T> ? DType::s8 : DType::u8;
    static constexpr int64_t lowest = std::is_signed_v<T> ? -128 : 0;

    static Quantization random_quantization(Random& random) {
        return {std::exp2(random.real(-12, 4)), static_cast<int32_t>(random.integer(lowest, lowest + 255))};
    }

    static T expected(T a, const Quantization& qa, T b, const Quantization& qb, const Quantization& qy, bool relu) {
        const float product = static_cast<float>(b - qb.zero_point) * static_cast<float>(qb.scale / qy.scale);
        const float sum =
            std::fma(static_cast<float>(a - qa.zero_point), static_cast<float>(qa.scale / qy.scale), product);
        const int64_t y = testing::rounded(sum) + qy.zero_point;
        return testing::saturated<T>(relu ? std::max<int64_t>(y, qy.zero_point) : y);
    }

    static void check(const Guarded<T>& a, const Quantization& qa, const Guarded<T>& b, const Quantization& qb,
                      const Quantization& qy, bool relu, const Parallel& parallel) {
        Guarded<T> y(a.size());
        add({static_cast<int64_t>(a.size()), {type, a.data(), qa}, {type, b.data(), qb}, {type, y.data(), qy}, relu},
            parallel);
        for (int64_t i = 0; i < static_cast<int64_t>(y.size()); ++i) {
            ASSERT_EQ(y[i], expected(a[i], qa, b[i], qb, qy, relu))
                << +a[i] << " - " << qa.zero_point << ", times " << qa.scale << "; " << +b[i] << " - " << qb.zero_point
                << ", times " << qb.scale << "; over " << qy.scale;
        }
    }
};

using Integers = ::testing::Types<int8_t, uint8_t>;
TYPED_TEST_SUITE(Add, Integers);

TYPED_TEST(Add, EveryPair) {
    Random random(3);
    Guarded<TypeParam> a(65536), b(65536);
    for (int64_t i = 0; i < 65536; ++i) {
        a[i] = static_cast<TypeParam>(i % 256);
        b[i] = static_cast<TypeParam>(i / 256);
    }
    for (int i = 0; i < 10; ++i) {
        const Quantization qa = this->random_quantization(random), qb = this->random_quantization(random);
        // As wide as the sums, about.
        const Quantization qy{std::max(qa.scale, qb.scale) * random.real(0.5, 2), qa.zero_point};
        this->check(a, qa, b, qb, qy, i % 2 == 1, kOneThread);
    }
    // Every second sum is a tie.
    this->check(a, {0.5, 3}, b, {0.5, 4}, {1, 5}, false, kOneThread);
    // Sums of the largest and the smallest numbers.
    this->check(a, {0x1p100, 3}, b, {0x1p-20, 4}, {1, 5}, false, kOneThread);
    this->check(a, {0x1p120, 3}, b, {0x1p120, 4}, {1, 5}, true, kOneThread);
}

TYPED_TEST(Add, EveryCountAndNumberOfThreads) {
    Random random(4);
    for (int64_t count = 0; count <= 140; ++count) {
        Guarded<TypeParam> a(static_cast<size_t>(count)), b(static_cast<size_t>(count));
        random.fill_bytes(a);
        random.fill_bytes(b);
        const Quantization qa = this->random_quantization(random), qb = this->random_quantization(random);
        const Parallel parallel{random.integer(1, 9), random.integer(1, 2000), in_ranges};
        this->check(a, qa, b, qb, qa, count % 2 == 1, parallel);
    }
}

TYPED_TEST(Add, InPlace) {
    Random random(5);
    Guarded<TypeParam> a(100), b(100), y(100);
    random.fill_bytes(a);
    random.fill_bytes(b);
    std::copy(a.begin(), a.end(), y.begin());
    const Quantization q{0.25, 7};
    add({100, {this->type, y.data(), q}, {this->type, b.data(), q}, {this->type, y.data(), q}, false}, kOneThread);
    for (int64_t i = 0; i < 100; ++i) {
        EXPECT_EQ(y[i], this->expected(a[i], q, b[i], q, q, false));
    }
}

TYPED_TEST(Add, QuotientsThatFp32DoesNotHold) {
    TypeParam a = 1, y = 0;
    for (const double scale : {1e-39, 1e39}) {
        const AddCall call{1, {this->type, &a, {scale, 0}}, {this->type, &a, {1, 0}}, {this->type, &y, {1, 0}}, false};
        EXPECT_THROW(add(call, kOneThread), std::invalid_argument);
        EXPECT_THROW(add({1, call.b, call.a, call.y, false}, kOneThread), std::invalid_argument);
    }
    EXPECT_EQ(y, 0);
}

} // namespace
} // namespace acl_qlinear
