// SPDX-License-Identifier: MIT
// Whole layers, in every family of kernels, against sums one by one and the epilogue's arithmetic.
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "engine/linear.h"
#include "engine/tiling.h"
#include "kernels/integers.h"
#include "kernels/micro_kernel.h"
#include "tests/reference.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::families_here;
using testing::Guarded;
using testing::Random;

// Each range on a thread of its own, whose scratch memory is as large as that range needs and ends
// where AddressSanitizer sees it.
void on_new_threads(int64_t count, RangeFunction f) {
    std::vector<std::thread> threads;
    threads.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        threads.emplace_back([=] { f(i, i + 1); });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
}

constexpr DType kTypes[] = {DType::s8, DType::u8, DType::f32, DType::bf16, DType::f16};
constexpr int64_t kFirstFloat = 2;

// A layer with random contents, and a call of it.
struct Layer {
    int64_t M, N, K;
    Guarded<int8_t> values;
    std::vector<double> scales;
    std::vector<float> bias;
    std::vector<int32_t> zero_points;
    std::vector<float> pre_scale;
    const KernelFamily* family;
    std::unique_ptr<Guarded<char>> bytes;
    PackedWeight packed{};

    Layer(int64_t rows, int64_t columns, int64_t depth, const KernelFamily& of, Random& random)
        : M(rows), N(columns), K(depth), values(static_cast<size_t>(N * K)), family(&of) {
        random.fill_bytes(values);
        scales.resize(static_cast<size_t>(random.integer(0, 1) ? N : 1));
        for (double& scale : scales) {
            scale = random.real(0.001, 0.02);
        }
        if (random.integer(0, 2)) {
            for (int64_t n = 0; n < N; ++n) {
                bias.push_back(static_cast<float>(random.real(-5, 5)));
            }
        }
        if (random.integer(0, 3) == 0) {
            for (size_t i = 0; i < scales.size(); ++i) {
                zero_points.push_back(static_cast<int32_t>(random.integer(-128, 127)));
            }
        }
        if (random.integer(0, 3) == 0) {
            for (int64_t k = 0; k < K; ++k) {
                pre_scale.push_back(static_cast<float>(random.real(0.1, 2)));
            }
        }
        const WeightSource source{values.data(),
                                  N,
                                  K,
                                  scales.data(),
                                  static_cast<int64_t>(scales.size()),
                                  bias.empty() ? nullptr : bias.data(),
                                  zero_points.empty() ? nullptr : zero_points.data(),
                                  pre_scale.empty() ? nullptr : pre_scale.data()};
        const PackPlan plan = plan_packing(source, of);
        bytes = std::make_unique<Guarded<char>>(plan.size, 64);
        pack(source, plan, bytes->data());
        packed = checked_view(bytes->data(), plan.size);
    }

    int32_t zero_point(int64_t n) const {
        return zero_points.empty() ? 0 : zero_points[scales.size() == 1 ? 0 : static_cast<size_t>(n)];
    }
};

// How each row of x becomes s8. Ranges and what is made of them are test_quantize.cpp's matter.
std::vector<RowQuantization> quantizations(const Layer& layer, const LinearCall& call) {
    std::vector<RowQuantization> all;
    for (int64_t m = 0; m < layer.M; ++m) {
        if (call.per_row == PerRow::no) {
            const auto scale = static_cast<float>(call.x.quantization.scale);
            all.push_back({scale, 1 / scale, call.x.quantization.zero_point});
        } else {
            const Rows x{call.x.type, call.x.data, layer.M, layer.K, nullptr, layer.packed.pre_scale};
            all.push_back(choose_row_quantization(layer.pre_scale.empty() ? x.type : DType::f32,
                                                  range_of(x.floats(m, 0, layer.K)), call.per_row));
        }
    }
    return all;
}

// The s8 value that the GEMM reads for x[i]; pre_scale: of its column.
int32_t signed_value(const Input& x, int64_t i, float pre_scale, const RowQuantization& q) {
    const auto integer = [&](float value) {
        return int32_t{testing::saturated<int8_t>(
            testing::saturated<int16_t>(testing::rounded(value * pre_scale * q.inverse_scale)) + q.zero_point)};
    };
    switch (x.type) {
    case DType::s8: return static_cast<const int8_t*>(x.data)[i];
    case DType::u8: return static_cast<const uint8_t*>(x.data)[i] - 128;
    case DType::f32: return integer(static_cast<const float*>(x.data)[i]);
    case DType::bf16: return integer(testing::float_of_bf16(static_cast<const uint16_t*>(x.data)[i]));
    case DType::f16: return integer(testing::float_of_f16(static_cast<const uint16_t*>(x.data)[i]));
    }
    return 0;
}

// The terms of each output column, as Epilogue has them.
struct Terms {
    std::vector<float> multiplier, bias;
    std::vector<int32_t> offset;

    Terms(const Layer& layer, const LinearCall& call) {
        const bool in_units_of_y = is_8bit(call.y.type) && is_homogeneous(call.post.activation);
        const double unit = in_units_of_y ? call.y.quantization.scale : 1.0;
        for (int64_t n = 0; n < layer.N; ++n) {
            const double scale = layer.scales[layer.scales.size() == 1 ? 0 : static_cast<size_t>(n)];
            const double x_scale = call.per_row == PerRow::no ? call.x.quantization.scale : 1;
            multiplier.push_back(static_cast<float>(x_scale * scale / unit));
            if (!layer.bias.empty()) {
                bias.push_back(layer.bias[static_cast<size_t>(n)] * static_cast<float>(1 / unit));
            }
            const int32_t shift = call.x.quantization.zero_point - (call.x.type == DType::u8 ? 128 : 0);
            int32_t sum = 0;
            for (int64_t k = 0; k < layer.K; ++k) {
                sum += layer.values[n * layer.K + k] - layer.zero_point(n);
            }
            offset.push_back(call.per_row == PerRow::no ? -shift * sum : sum);
        }
    }
};

int wrong_outputs(const Layer& layer, const LinearCall& call) {
    const Terms terms(layer, call);
    Epilogue e{};
    e.offset = terms.offset.data();
    e.multiplier = terms.multiplier.data();
    e.bias = terms.bias.empty() ? nullptr : terms.bias.data();
    e.post = call.post;
    e.type = call.y.type;
    e.inverse_scale = is_homogeneous(call.post.activation) ? 1 : static_cast<float>(1 / call.y.quantization.scale);
    e.zero_point = call.y.quantization.zero_point;
    const std::vector<RowQuantization> rows = quantizations(layer, call);
    e.rows = call.per_row == PerRow::no ? nullptr : rows.data();
    std::vector<int32_t> x(static_cast<size_t>(layer.K));
    int wrong = 0;
    for (int64_t m = 0; m < layer.M; ++m) {
        for (int64_t k = 0; k < layer.K; ++k) {
            const float pre_scale = layer.pre_scale.empty() ? 1 : layer.pre_scale[static_cast<size_t>(k)];
            x[static_cast<size_t>(k)] = signed_value(call.x, m * layer.K + k, pre_scale, rows[static_cast<size_t>(m)]);
        }
        for (int64_t n = 0; n < layer.N; ++n) {
            int32_t sum = 0;
            for (int64_t k = 0; k < layer.K; ++k) {
                sum += x[static_cast<size_t>(k)] * (layer.values[n * layer.K + k] - layer.zero_point(n));
            }
            const uint32_t y = testing::bits_of(call.y.type, static_cast<const char*>(call.y.data), m * layer.N + n);
            wrong += y != testing::expected_bits(sum, e, m, n);
        }
    }
    return wrong;
}

Quantization random_quantization(DType type, double scale, Random& random) {
    const int64_t low = type == DType::u8 ? 0 : -128;
    return {scale, static_cast<int32_t>(random.integer(low, low + 255))};
}

void check_call(const Layer& layer, int64_t threads, Random& random) {
    const DType x_type = random.one_of(kTypes, layer.pre_scale.empty() ? 0 : kFirstFloat);
    const DType y_type = random.one_of(kTypes);
    Guarded<char> x(static_cast<size_t>(layer.M * layer.K) * size_of(x_type), size_of(x_type));
    Guarded<char> y(static_cast<size_t>(layer.M * layer.N) * size_of(y_type), size_of(y_type));
    random.fill_bytes(x);
    for (int64_t i = 0; !is_8bit(x_type) && i < layer.M * layer.K; ++i) {
        const auto value = static_cast<float>(random.real(-3, 3));
        const uint16_t bits = x_type == DType::bf16 ? testing::bf16_of_float(value) : testing::f16_of_float(value);
        std::memcpy(x.data() + static_cast<size_t>(i) * size_of(x_type),
                    x_type == DType::f32 ? static_cast<const void*>(&value) : &bits, size_of(x_type));
    }
    const double y_scale = 0.02 * std::sqrt(static_cast<double>(layer.K));
    const PostOp post{random.one_of({Activation::none, Activation::relu, Activation::leaky_relu, Activation::gelu}),
                      static_cast<float>(random.real(-0.5, 2))};
    const LinearCall call{layer.M,
                          {x_type, x.data(), random_quantization(x_type, 0.02, random)},
                          {y_type, y.data(), random_quantization(y_type, y_scale, random)},
                          post,
                          is_8bit(x_type) || is_8bit(y_type)
                              ? PerRow::no
                              : random.one_of({PerRow::no, PerRow::asymmetric, PerRow::symmetric, PerRow::narrow})};
    std::ostringstream description;
    description << "by row " << static_cast<int>(call.per_row) << ", " << layer.family->name << ", M=" << layer.M
                << " N=" << layer.N << " K=" << layer.K << ", threads " << threads << ", types "
                << static_cast<int>(x_type) << " and " << static_cast<int>(y_type) << ", scales " << layer.scales.size()
                << ", bias " << !layer.bias.empty() << ", zero points " << !layer.zero_points.empty() << ", pre-scale "
                << !layer.pre_scale.empty();
    testing::current_case() = description.str();
    std::thread caller([&] { linear(call, layer.packed, {threads, 1, on_new_threads}); });
    caller.join();
    EXPECT_EQ(wrong_outputs(layer, call), 0) << description.str();
}

// The smallest first: what fails first is about the smallest that can, which stands for shrinking.
TEST(Linear, RandomLayersAndCalls) {
    Random random(12);
    for (const KernelFamily* const family : families_here()) {
        for (int i = 0; i < 250; ++i) {
            const int64_t most = i % 10 ? 2 + i / 3 : 1 + i;
            const Layer layer(random.integer(1, 1 + i / 12), random.integer(1, most), random.integer(1, most), *family,
                              random);
            check_call(layer, random.one_of<int64_t>({1, 1, 2, 3, 4, 8}), random);
            if (HasFailure()) {
                return;
            }
        }
    }
}

TEST(Linear, ShapesAndThreadsThatOnceWentWrong) {
    Random random(13);
    for (const KernelFamily* const family : families_here()) {
        // {M, N, K}; M * K < N; tiles that begin between two of the epilogue's blocks of columns.
        for (const auto& [M, N, K] :
             {Problem{1, 26, 16}, {1, 14, 16}, {1, 38, 16}, {1, 512, 64}, {1, 1000, 1}, {200, 48, 17}}) {
            for (int i = 0; i < 3; ++i) {
                const Layer layer(M, N, K, *family, random);
                check_call(layer, 2, random);
                check_call(layer, 5, random);
            }
        }
    }
}

// Several blocks of rows and of K.
TEST(Linear, LongRows) {
    Random random(14);
    for (const KernelFamily* const family : families_here()) {
        check_call(Layer(19, 50, 3000, *family, random), 2, random);
        check_call(Layer(140, 13, 700, *family, random), 1, random);
    }
}

TEST(Linear, NoRows) {
    Random random(15);
    const Layer layer(1, 5, 7, *families_here().back(), random);
    linear({0, {DType::s8, nullptr, {1, 0}}, {DType::f32, nullptr, {}}, {}}, layer.packed, {4, 1, on_new_threads});
}

int64_t regions, tiles;

void count_tiles(int64_t count, RangeFunction f) {
    ++regions;
    tiles = count;
    f(0, count);
}

TEST(Linear, SmallWorkIsForFewThreads) {
    Random random(16);
    constexpr int64_t K = 128, N = 120, most = 64;
    for (const int64_t M : {1, 9, 128}) {
        const int64_t work = round_up(M, kMaxTileRows) * K * N;
        const Layer layer(M, N, K, *families_here().back(), random);
        const std::vector<uint8_t> x(static_cast<size_t>(M * K));
        std::vector<float> y(static_cast<size_t>(M * N));
        for (const int64_t grain : {work / 2 + 1, work / 2, work / 7, work / 1000}) {
            SCOPED_TRACE(::testing::Message() << "M=" << M << ", grain " << grain);
            regions = tiles = 0;
            linear({M, {DType::u8, x.data(), {1, 0}}, {DType::f32, y.data(), {}}, {}}, layer.packed,
                   {most, grain, count_tiles});
            EXPECT_EQ(regions, grain * 2 <= work ? 1 : 0);
            // There may be a few more tiles than threads.
            EXPECT_LT(tiles, std::min(2 * most, 2 * work / grain));
        }
    }
}

// A layer whose bias cancels the products of one row, and rows that differ from that one by little: 8-bit
// results near 0 are what is left of up to 10^8 steps.
struct Cancelling {
    static constexpr int64_t M = 40, N = 60;
    static constexpr double x_scale = 0.02;
    int64_t K;
    Activation activation;
    double w_scale, y_scale;
    std::vector<int8_t> w;
    std::vector<uint8_t> x;
    std::vector<float> bias;

    // step: of the sums, in steps of y.
    Cancelling(double step, int64_t depth, Activation function, Random& random)
        : K(depth), activation(function), w_scale(0.01), y_scale(x_scale * w_scale / step) {
        if (!is_homogeneous(activation)) {
            y_scale = 1.0 / 128;
            w_scale = step * y_scale / x_scale;
        }
        std::generate_n(std::back_inserter(w), N * K, [&] { return static_cast<int8_t>(random.integer(1, 127)); });
        // So that rows can be copied from the first one.
        x.reserve(static_cast<size_t>(M * K));
        std::generate_n(std::back_inserter(x), K, [&] { return static_cast<uint8_t>(random.integer(0, 255)); });
        for (int64_t n = 0; n < N; ++n) {
            bias.push_back(static_cast<float>(-static_cast<double>(sum(0, n)) * x_scale * w_scale));
        }
        for (int64_t m = 1; m < M; ++m) {
            std::copy_n(x.begin(), K, std::back_inserter(x));
            uint8_t& one = x[static_cast<size_t>(m * K + random.integer(0, K - 1))];
            one = static_cast<uint8_t>(std::clamp<int64_t>(one + random.integer(-2, 2), 0, 255));
        }
    }

    int64_t sum(int64_t m, int64_t n) const {
        return std::inner_product(x.begin() + m * K, x.begin() + (m + 1) * K, w.begin() + n * K, int64_t{0});
    }

    int8_t expected(int64_t m, int64_t n) const {
        const double unit = is_homogeneous(activation) ? y_scale : 1;
        const double multiplier = static_cast<float>(x_scale * w_scale / unit);
        double v = std::fma(static_cast<double>(sum(m, n)), multiplier, bias[static_cast<size_t>(n)] / unit);
        if (activation == Activation::relu) {
            v = std::max(v, 0.0);
        } else if (activation == Activation::tanh) {
            v = std::tanh(v) / y_scale;
        }
        return testing::saturated<int8_t>(testing::rounded(v) + 3);
    }

    std::vector<int8_t> run() const {
        const WeightSource source{w.data(), N, K, &w_scale, 1, bias.data(), nullptr, nullptr};
        const PackPlan plan = plan_packing(source);
        Guarded<char> bytes(plan.size, 64);
        pack(source, plan, bytes.data());
        std::vector<int8_t> y(static_cast<size_t>(M * N));
        linear({M, {DType::u8, x.data(), {x_scale, 0}}, {DType::s8, y.data(), {y_scale, 3}}, {activation, 0}},
               checked_view(bytes.data(), plan.size), {1, 1, nullptr});
        return y;
    }
};

TEST(Linear, LargeBiasesThatCancel) {
    Random random(16);
    int off = 0, all = 0;
    for (const double step : {0.001, 0.03, 0.7, 9.0}) {
        for (const Activation activation : {Activation::none, Activation::relu, Activation::tanh}) {
            for (const int64_t K : {50, 3000}) {
                const Cancelling layer(step, K, activation, random);
                const std::vector<int8_t> y = layer.run();
                for (int64_t i = 0; i < Cancelling::M * Cancelling::N; ++i, ++all) {
                    const int difference =
                        y[static_cast<size_t>(i)] - layer.expected(i / Cancelling::N, i % Cancelling::N);
                    ASSERT_LE(std::abs(difference), 1) << "step " << step << ", K=" << K << ", output " << i;
                    off += difference != 0;
                }
            }
        }
    }
    EXPECT_LE(off, 1e-4 * all) << off << " of " << all;
}

// In the calling thread and in another one that works for it.
TEST(Linear, AnotherSveVectorLengthIsRefused) {
    // Static, so that functions without captures see it.
    static const int other = sve_bytes() == 16 ? 32 : 16;
    bool has_other = false;
    std::thread([&] { has_other = (prctl(PR_SVE_SET_VL, other) & PR_SVE_VL_LEN_MASK) == other; }).join();
    if (!has_other) {
        EXPECT_LE(sve_bytes(), 16u) << "every longer vector can be made shorter";
        return;
    }
    Random random(17);
    const KernelFamily& family = *families_here().front();
    const Layer layer(70, 50, 30, family, random);
    std::vector<int8_t> x(70 * 30), y(70 * 50);
    const LinearCall call{70, {DType::s8, x.data(), {1, 0}}, {DType::s8, y.data(), {1, 0}}, {}};
    std::string in_caller, in_worker;
    const auto message = [](const auto& body) -> std::string {
        try {
            body();
        } catch (const std::invalid_argument& error) {
            return error.what();
        }
        return "nothing";
    };
    std::thread([&] {
        prctl(PR_SVE_SET_VL, other);
        in_caller = message([&] { checked_view(layer.bytes->data(), layer.bytes->size()); });
    }).join();
    linear(call, layer.packed, {2, 1, [](int64_t count, RangeFunction f) { f(0, count); }});
    const auto in_another = [](int64_t count, RangeFunction f) {
        std::exception_ptr error;
        std::thread([&] {
            prctl(PR_SVE_SET_VL, other);
            try {
                f(0, count);
            } catch (...) {
                error = std::current_exception();
            }
        }).join();
        std::rethrow_exception(error);
    };
    in_worker = message([&] { linear(call, layer.packed, {2, 1, in_another}); });
    const std::string here = std::to_string(sve_bytes()) + " bytes";
    const std::string there = std::to_string(other);
    EXPECT_EQ(in_caller, "it was packed for SVE vectors of " + here + ", this CPU has " + there +
                             ": pack the weight again on this CPU");
    EXPECT_EQ(in_worker, "a thread has SVE vectors of " + there + " bytes, and the calling one of " +
                             std::to_string(sve_bytes()) + ": set the vector length before the first call");
}

std::string error_of(const LinearCall& call, const PackedWeight& weight) {
    try {
        linear(call, weight, {1, 1, nullptr});
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing";
}

TEST(Linear, IntegersHaveNoPreScale) {
    const int8_t value = 1;
    const double scale = 0.5;
    const float pre_scale = 2;
    const WeightSource source{&value, 1, 1, &scale, 1, nullptr, nullptr, &pre_scale};
    const PackPlan plan = plan_packing(source);
    Guarded<char> bytes(plan.size, 64);
    pack(source, plan, bytes.data());
    float y = 0;
    for (const DType type : {DType::s8, DType::u8}) {
        EXPECT_EQ(
            error_of({1, {type, &value, {1, 0}}, {DType::f32, &y, {}}, {}}, checked_view(bytes.data(), plan.size)),
            "x has integers, expected floats: the weight was packed with a pre_scale");
    }
}

TEST(Linear, ScalesThatFp32CannotHoldAreNamed) {
    const int8_t value = 1;
    const double scale = 0.5;
    const WeightSource source{&value, 1, 1, &scale, 1, nullptr, nullptr, nullptr};
    const PackPlan plan = plan_packing(source);
    Guarded<char> bytes(plan.size, 64);
    pack(source, plan, bytes.data());
    const PackedWeight packed = checked_view(bytes.data(), plan.size);
    int8_t y = 0;
    const auto error = [&](double x_scale, double y_scale, Activation activation) {
        return error_of({1, {DType::s8, &value, {x_scale, 0}}, {DType::s8, &y, {y_scale, 0}}, {activation, 0}}, packed);
    };
    EXPECT_EQ(error(0.25, 0.5, Activation::none), "nothing");
    EXPECT_EQ(error(1e-40, 0.5, Activation::none),
              "input scale * weight scale / output scale is not a normal fp32 number: the input scale is 1e-40, the "
              "weight scale 0.5, the output scale 0.5");
    // The weight's scale has no part in it, and is not named.
    EXPECT_EQ(error(0.25, 1e-40, Activation::gelu),
              "1 / output scale is not a normal fp32 number: the output scale is 1e-40");
}

} // namespace
} // namespace acl_qlinear
