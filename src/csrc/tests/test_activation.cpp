// SPDX-License-Identifier: MIT
// The activation functions against the C library's, in double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "engine/activation.h"

namespace acl_qlinear {
namespace {

template <Activation activation> float value(float x) {
    return vgetq_lane_f32(activate<activation>(vdupq_n_f32(x), vdupq_n_f32(0.25f)), 0);
}

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

// From -30 to 30, denser near 0.
template <typename F> void for_each_x(const F& use) {
    for (int i = -30000; i <= 30000; ++i) {
        const double t = i / 30000.0;
        use(static_cast<float>(30 * t * t * t));
    }
}

template <Activation activation, typename F> void check(double absolute, double relative, const F& exact) {
    double worst = 0;
    for_each_x([&](float x) {
        const double expected = exact(static_cast<double>(x)), error = std::abs(value<activation>(x) - expected);
        worst = std::max(worst, error / (absolute + relative * std::abs(expected)));
    });
    EXPECT_LE(worst, 1);
}

TEST(Activation, Tanh) {
    check<Activation::tanh>(0, 4e-7, [](double x) { return std::tanh(x); });
}

TEST(Activation, Gelu) {
    check<Activation::gelu>(8e-7, 4e-7, [](double x) { return x * std::erfc(-x / std::sqrt(2.0)) / 2; });
}

TEST(Activation, GeluTanh) {
    check<Activation::gelu_tanh>(6e-7, 4e-7, [](double x) {
        return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    });
}

TEST(Activation, Silu) {
    check<Activation::silu>(0, 5e-7, [](double x) { return x * sigmoid(x); });
}

TEST(Activation, PiecewiseLinearOnesAreExact) {
    for_each_x([](float x) {
        EXPECT_EQ(value<Activation::none>(x), x);
        EXPECT_EQ(value<Activation::relu>(x), x > 0 ? x : 0);
        EXPECT_EQ(value<Activation::leaky_relu>(x), x < 0 ? x / 4 : x);
    });
}

TEST(Activation, FarFromZero) {
    for (const float x : {100.0f, 1e6f, 3e38f, std::numeric_limits<float>::max(), INFINITY}) {
        EXPECT_EQ(value<Activation::tanh>(x), 1);
        EXPECT_EQ(value<Activation::tanh>(-x), -1);
        EXPECT_EQ(value<Activation::gelu>(x), x);
        EXPECT_EQ(value<Activation::gelu>(-x), 0);
        EXPECT_EQ(value<Activation::gelu_tanh>(x), x);
        EXPECT_EQ(value<Activation::gelu_tanh>(-x), 0);
        EXPECT_EQ(value<Activation::silu>(x), x);
        EXPECT_NEAR(value<Activation::silu>(-x), 0, 1e-30);
        EXPECT_EQ(value<Activation::leaky_relu>(-x), -x / 4);
        EXPECT_EQ(value<Activation::relu>(-x), 0);
    }
}

TEST(Activation, NanStaysNan) {
    EXPECT_TRUE(std::isnan(value<Activation::relu>(NAN)));
    EXPECT_TRUE(std::isnan(value<Activation::leaky_relu>(NAN)));
    EXPECT_TRUE(std::isnan(value<Activation::tanh>(NAN)));
    EXPECT_TRUE(std::isnan(value<Activation::gelu>(NAN)));
    EXPECT_TRUE(std::isnan(value<Activation::gelu_tanh>(NAN)));
    EXPECT_TRUE(std::isnan(value<Activation::silu>(NAN)));
}

} // namespace
} // namespace acl_qlinear
