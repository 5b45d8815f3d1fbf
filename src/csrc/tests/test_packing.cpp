// SPDX-License-Identifier: MIT
// Packing and unpacking of activations and weights, and the checks of packed weights.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "engine/packed_weight.h"
#include "kernels/integers.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::families_here;
using testing::Guarded;
using testing::Random;

TEST(Packing, ActivationsAreWhereTheContractSays) {
    Random random(3);
    for (const KernelFamily* const family : families_here()) {
        for (const TileKernel& kernel : family->kernels) {
            for (int64_t count = 1; kernel.run && count <= 70; ++count) {
                const int64_t k = random.integer(0, 40), K = k + count, step = family->k_step;
                Guarded<int8_t> x(static_cast<size_t>(kernel.rows * K));
                random.fill_bytes(x);
                const int8_t* rows[kMaxTileRows];
                for (int64_t i = 0; i < kernel.rows; ++i) {
                    rows[i] = x.data() + i * K;
                }
                const auto flip = random.one_of<int8_t>({0, INT8_MIN});
                Guarded<int8_t> A(static_cast<size_t>(kernel.rows * round_up<int64_t>(count, 16)));
                kernel.pack(rows, k, count, vdupq_n_s8(flip), A.data());
                int wrong = 0;
                for (int64_t i = 0; i < kernel.rows; ++i) {
                    for (int64_t j = 0; j < count; ++j) {
                        wrong += A[j / step * kernel.rows * step + i * step + j % step] != (rows[i][k + j] ^ flip);
                    }
                }
                EXPECT_EQ(wrong, 0) << family->name << ", height " << kernel.rows << ", k=" << k << " count=" << count;
            }
        }
    }
}

TEST(Packing, WeightsAreWhereTheContractSays) {
    Random random(4);
    for (const KernelFamily* const family : families_here()) {
        for (int i = 0; i < 60; ++i) {
            const int64_t N = random.integer(1, 60), K = random.integer(1, 70);
            const int64_t width = family->panel_columns(), step = family->k_step;
            Guarded<int8_t> w(static_cast<size_t>(N * K)), B(family->packed_bytes(N, K)), back(w.size());
            random.fill_bytes(w);
            pack_weights(*family, N, K, w.data(), B.data());
            int wrong = 0;
            for (int64_t n = 0; n < round_up(N, width); ++n) {
                for (int64_t k = 0; k < round_up(K, step); ++k) {
                    const int64_t at = (n / width * round_up(K, step) / step + k / step) * width * step;
                    wrong += B[at + n % width * step + k % step] != (n < N && k < K ? w[n * K + k] : 0);
                }
            }
            unpack_weights(*family, N, K, B.data(), back.data());
            EXPECT_EQ(wrong, 0) << family->name << ", N=" << N << " K=" << K;
            EXPECT_TRUE(std::equal(w.begin(), w.end(), back.begin())) << family->name << ", N=" << N << " K=" << K;
        }
    }
}

struct Source {
    std::vector<int8_t> values;
    std::vector<double> scales;
    std::vector<float> bias;
    std::vector<int32_t> zero_points;
    std::vector<float> pre_scale;
    int64_t N, K;

    Source(int64_t outputs, int64_t inputs, bool per_channel)
        : values(static_cast<size_t>(outputs * inputs), 3), scales(static_cast<size_t>(per_channel ? outputs : 1), 0.5),
          N(outputs), K(inputs) {}

    WeightSource view() const {
        return {values.data(),
                N,
                K,
                scales.data(),
                static_cast<int64_t>(scales.size()),
                bias.empty() ? nullptr : bias.data(),
                zero_points.empty() ? nullptr : zero_points.data(),
                pre_scale.empty() ? nullptr : pre_scale.data()};
    }

    std::vector<char> packed() const {
        const PackPlan plan = plan_packing(view());
        // Of malloc, so aligned to 16 bytes; nothing of it asks for more.
        std::vector<char> bytes(plan.size);
        pack(view(), plan, bytes.data());
        return bytes;
    }
};

// With and without bias, zero points and pre-scale.
Source random_source(Random& random) {
    Source source(random.integer(1, 70), random.integer(1, 90), random.integer(0, 1));
    random.fill_bytes(source.values);
    for (double& scale : source.scales) {
        scale = random.real(1e-3, 1);
    }
    if (random.integer(0, 1)) {
        source.bias.assign(static_cast<size_t>(source.N), static_cast<float>(random.integer(0, 1)));
    }
    if (random.integer(0, 1)) {
        source.zero_points.assign(source.scales.size(), 0);
        for (int32_t& zero_point : source.zero_points) {
            zero_point = static_cast<int32_t>(random.integer(-128, 127) * random.integer(0, 2));
        }
    }
    for (int32_t& zero_point : source.zero_points) {
        zero_point = std::clamp(zero_point, -128, 127);
    }
    if (random.integer(0, 1)) {
        for (int64_t k = 0; k < source.K; ++k) {
            source.pre_scale.push_back(static_cast<float>(random.real(-9, 9)));
        }
    }
    return source;
}

TEST(Packing, PackedWeightHasAllThatWasGiven) {
    Random random(5);
    for (int i = 0; i < 200; ++i) {
        const Source source = random_source(random);
        const std::vector<char> bytes = source.packed();
        EXPECT_EQ(bytes.size() % static_cast<size_t>(source.N), 0U);
        const PackedWeight packed = checked_view(bytes.data(), bytes.size());
        ASSERT_EQ(packed.N, source.N);
        ASSERT_EQ(packed.K, source.K);
        ASSERT_EQ(packed.scale_count, static_cast<int64_t>(source.scales.size()));
        EXPECT_TRUE(std::equal(source.scales.begin(), source.scales.end(), packed.scales));
        EXPECT_EQ(packed.bias_was_given, !source.bias.empty());
        EXPECT_EQ(packed.bias_is_nonzero, !source.bias.empty() && source.bias[0] != 0);
        EXPECT_TRUE(std::equal(source.bias.begin(), source.bias.end(), packed.bias));
        const auto zero_point = [&](int64_t n) {
            return source.zero_points.empty()
                       ? 0
                       : source.zero_points[packed.scale_count == 1 ? 0 : static_cast<size_t>(n)];
        };
        bool has_zero_points = false;
        for (int64_t n = 0; n < source.N; ++n) {
            int32_t sum = 0;
            for (int64_t k = 0; k < source.K; ++k) {
                sum += source.values[static_cast<size_t>(n * source.K + k)] - zero_point(n);
            }
            EXPECT_EQ(packed.column_sums[n], sum);
            has_zero_points |= zero_point(n) != 0;
        }
        EXPECT_EQ(packed.zero_points != nullptr, has_zero_points);
        for (int64_t n = 0; packed.zero_points && n < source.N; ++n) {
            EXPECT_EQ(packed.zero_points[n], zero_point(n));
        }
        EXPECT_EQ(packed.pre_scale != nullptr, !source.pre_scale.empty());
        EXPECT_TRUE(std::equal(source.pre_scale.begin(), source.pre_scale.end(), packed.pre_scale));
        std::vector<int8_t> values(source.values.size());
        unpack(packed, values.data());
        EXPECT_EQ(values, source.values);
    }
}

// What `body` throws.
template <typename F> std::string error_of(const F& body) {
    try {
        body();
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing";
}

TEST(Packing, BadWeightsAreRefused) {
    const auto error = [](auto change) {
        Source source(4, 6, true);
        WeightSource view = source.view();
        change(source, view);
        return error_of([&] { plan_packing(view); });
    };
    EXPECT_EQ(error([](Source&, WeightSource& v) { v.N = 0; }),
              "weight has N=0 output features, expected 1 to 134217727");
    EXPECT_EQ(error([](Source&, WeightSource& v) { v.K = kMaxK + 1; }),
              "weight has K=65794 input features, expected 1 to 65793 (beyond it 32-bit accumulators can overflow)");
    EXPECT_EQ(error([](Source&, WeightSource& v) { v.scale_count = 3; }), "weight has 3 scales, expected 1 or N=4");
    EXPECT_EQ(error([](Source& s, WeightSource&) { s.scales[2] = -1; }),
              "weight scale 2 is -1.000000, expected a finite number above 0");
    EXPECT_EQ(error([](Source& s, WeightSource& v) {
                  s.zero_points = {0, 0, 0, 128};
                  v = s.view();
              }),
              "weight zero point 3 is 128, expected -128 to 127");
    EXPECT_EQ(error([](Source& s, WeightSource& v) {
                  s.bias = {0, INFINITY, 0, 0};
                  v = s.view();
              }),
              "bias[1] is inf, expected a finite number");
    EXPECT_EQ(error([](Source& s, WeightSource& v) {
                  s.pre_scale = {1, 1, 1, 1, 1, NAN};
                  v = s.view();
              }),
              "pre_scale[5] is nan, expected a finite number");
    EXPECT_EQ(error([](Source&, WeightSource&) {}), "nothing");
}

TEST(Packing, BytesThatAreNoPackedWeightAreRefused) {
    const std::vector<char> good = Source(4, 6, false).packed();
    const auto error = [&](auto change) {
        std::vector<char> bytes = good;
        change(bytes);
        return error_of([&] { checked_view(bytes.data(), bytes.size()); });
    };
    EXPECT_EQ(error([](auto&) {}), "nothing");
    EXPECT_EQ(error([](auto& b) { b.resize(40); }), "it has 40 bytes, too few for a packed weight");
    EXPECT_EQ(error([](auto& b) { b[0] = 0; }), "it does not start with the mark of a packed weight");
    EXPECT_EQ(error([](auto& b) { b[8] = 2; }), "it has format version 2, expected 3: pack the weight again");
    EXPECT_NE(error([](auto& b) { b.push_back(0); }).find("bytes, its header says"), std::string::npos);
    EXPECT_NE(error([](auto& b) { b[12] = static_cast<char>(b[12] + 16); }).find("it was packed for SVE vectors of"),
              std::string::npos);
    EXPECT_EQ(error([](auto& b) { b[24] = 5; }), "its header has been changed: N=5 and K=6 do not fit its size");
    EXPECT_NE(error([](auto& b) { b[64] = '?'; }).find("which is not used here: pack the weight again"),
              std::string::npos);
}

} // namespace
} // namespace acl_qlinear
