// SPDX-License-Identifier: MIT
// Calls of layers.
#include "engine/linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "engine/quantize.h"
#include "torch/checks.h"
#include "torch/host.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

std::atomic<int64_t> fallbacks{0};
std::atomic<bool> is_fallback_forbidden{false};

// Arguments as they come, before they are checked.
struct ActivationArguments {
    Text name;
    double negative_slope;
};

PostOp checked_activation(const char* op, const ActivationArguments& given) {
    constexpr std::pair<Text, Activation> all[] = {
        {"none", Activation::none}, {"relu", Activation::relu}, {"leaky_relu", Activation::leaky_relu},
        {"tanh", Activation::tanh}, {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh},
        {"silu", Activation::silu},
    };
    for (const auto& [known, activation] : all) {
        if (given.name == known) {
            CHECK_VALUE(std::isfinite(given.negative_slope), op, "negative_slope is ", given.negative_slope,
                        ", expected a finite number");
            return {activation, static_cast<float>(given.negative_slope)};
        }
    }
    CHECK_VALUE(false, op, "activation is \"", given.name,
                "\", expected none, relu, leaky_relu, tanh, gelu, gelu_tanh or silu");
}

DType dtype_of(const char* op, const char* name, ScalarType type) {
    switch (type) {
    case ScalarType::Char:
    case ScalarType::QInt8: return DType::s8;
    case ScalarType::Byte:
    case ScalarType::QUInt8: return DType::u8;
    case ScalarType::Float: return DType::f32;
    case ScalarType::BFloat16: return DType::bf16;
    case ScalarType::Half: return DType::f16;
    default: CHECK_TYPE(false, op, name, " is ", type, ", expected int8, uint8, float32, bfloat16 or float16");
    }
}

bool is_float(ScalarType type) {
    return type == ScalarType::Float || type == ScalarType::BFloat16 || type == ScalarType::Half;
}

void check_not_quantized(const char* op, const char* name, const Tensor& t) {
    CHECK_TYPE(!t.is_quantized(), op, name, " is ", describe(t),
               ", expected a plain tensor: acl_qlinear.linear takes quantized ones, with their scales");
}

void check_columns(const char* op, const Tensor& x, const PackedWeight& weight) {
    CHECK_TYPE(is_plain_cpu(x), op, "x is ", describe(x), ", expected a dense CPU tensor");
    CHECK_VALUE(x.dim() >= 1 && x.size(-1) == weight.K, op, "x has shape ", x.sizes(), ", expected [..., ", weight.K,
                "], the packed weight's in_features");
}

// A call that is checked but for its output.
struct Call {
    const char* op;
    Tensor x; // contiguous
    DType x_type;
    Quantization input;
    PackedWeight weight;
    PostOp post;
    PerRow per_row = PerRow::no;

    Sizes output_sizes() const {
        const Shape given = x.sizes();
        Sizes sizes(given.begin(), given.end());
        sizes.back() = weight.N;
        return sizes;
    }
};

// y: contiguous, of call.output_sizes(). output: for 8-bit y.
void run(const Call& call, const Tensor& y, DType y_type, const Quantization& output) {
    if (call.weight.zero_points) {
        check_fallback(call.op, true);
        fallbacks.fetch_add(1, std::memory_order_relaxed);
    }
    const int64_t M = call.x.numel() / call.weight.K;
    const LinearCall linear_call{M,
                                 {call.x_type, call.x.const_data_ptr(), call.input},
                                 {y_type, y.mutable_data_ptr(), output},
                                 call.post,
                                 call.per_row};
    value_errors(call.op, "", [&] { acl_qlinear::linear(linear_call, call.weight, threads()); });
}

// A plain x with its quantization.
Call plain_call(const char* op, const Tensor& x, const QuantizationArguments& input, const Tensor& packed,
                const ActivationArguments& activation) {
    check_not_quantized(op, "x", x);
    CHECK_TYPE(x.defined(), op, "x is None, expected a tensor");
    const DType x_type = dtype_of(op, "x", x.scalar_type());
    const PostOp post = checked_activation(op, activation);
    const PackedWeight weight = checked_weight(op, packed);
    check_columns(op, x, weight);
    return {op, x.contiguous(), x_type, checked_quantization(op, "x", input, x_type), weight, post};
}

void run_plain(const Call& call, const Tensor& y, const QuantizationArguments& output) {
    const DType y_type = dtype_of(call.op, "output_dtype", y.scalar_type());
    run(call, y, y_type, is_8bit(y_type) ? checked_quantization(call.op, "output", output, y_type) : Quantization{});
}

// The addresses that a tensor's elements lie between.
std::pair<const char*, const char*> extent(const Tensor& t) {
    const auto* const begin = static_cast<const char*>(t.const_data_ptr());
    if (t.numel() == 0) {
        return {begin, begin};
    }
    int64_t last = 0;
    for (int64_t i = 0; i < t.dim(); ++i) {
        last += (t.size(i) - 1) * t.stride(i);
    }
    return {begin, begin + static_cast<size_t>(last + 1) * t.element_size()};
}

// Asks addresses, since two storages may share memory: torch.from_numpy() of one array, twice.
bool share_memory(const Tensor& a, const Tensor& b) {
    const auto [a_begin, a_end] = extent(a);
    const auto [b_begin, b_end] = extent(b);
    return std::less<>()(a_begin, b_end) && std::less<>()(b_begin, a_end);
}

void check_no_internal_overlap(const char* op, const Tensor& out) {
    for (int64_t i = 0; i < out.dim(); ++i) {
        CHECK_RUNTIME(out.size(i) <= 1 || out.stride(i) != 0 || out.numel() == 0, op,
                      "out is expanded along dimension ", i,
                      ", so that its elements share memory, expected memory for each: clone() makes such a tensor");
    }
}

constexpr const char* kStatic = "acl_qlinear::linear_static: ";
constexpr const char* kDynamic = "acl_qlinear::linear_dynamic: ";
constexpr PostOp kNoActivation{Activation::none, 0};

// A call for a float x whose quantization is still to be chosen, and the type of its output.
std::pair<Call, ScalarType> float_call(const char* op, const Tensor& x, const Tensor& packed,
                                       std::optional<ScalarType> output_dtype, const PostOp& post) {
    CHECK_TYPE(is_float(x.scalar_type()) && is_plain_cpu(x), op, "x is ", describe(x),
               ", expected a float32, bfloat16 or float16 CPU tensor");
    const auto type = output_dtype.value_or(x.scalar_type());
    CHECK_TYPE(is_float(type), op, "output_dtype is ", type, ", expected float32, bfloat16 or float16");
    const PackedWeight weight = checked_weight(op, packed);
    check_columns(op, x, weight);
    return {Call{op, x.contiguous(), dtype_of(op, "x", x.scalar_type()), {}, weight, post}, type};
}

// The range of all rows of x.
Range range_of_all(const Call& call) {
    const auto* const x = static_cast<const char*>(call.x.const_data_ptr());
    const auto count = static_cast<size_t>(call.x.numel()), K = static_cast<size_t>(call.weight.K);
    if (!call.weight.pre_scale || count == 0) {
        return range_of({call.x_type, x, count, nullptr});
    }
    constexpr float infinity = std::numeric_limits<float>::infinity();
    Range all{infinity, -infinity};
    for (size_t row = 0; row < count / K; ++row) {
        const Range range = range_of({call.x_type, x + row * K * size_of(call.x_type), K, call.weight.pre_scale});
        if (!(range.lowest <= range.highest)) {
            return range; // It has NaN.
        }
        all = {std::min(range.lowest, all.lowest), std::max(range.highest, all.highest)};
    }
    return all;
}

Tensor run_float(const Call& call, ScalarType type) {
    Tensor y = host::empty(call.output_sizes(), type);
    run(call, y, dtype_of(call.op, "output_dtype", type), {});
    return y;
}

Tensor run_static(const Tensor& x, const Tensor& packed, const QuantizationArguments& input, const PostOp& post) {
    auto [call, type] = float_call(kStatic, x, packed, std::nullopt, post);
    call.input = checked_quantization(call.op, "x", input, call.x_type);
    return run_float(call, type);
}

Tensor run_dynamic(const Tensor& x, const Tensor& packed, bool reduce_range, std::optional<ScalarType> output_dtype,
                   const PostOp& post) {
    auto [call, type] = float_call(kDynamic, x, packed, output_dtype, post);
    const Range range = range_of_all(call);
    // PyTorch's own words.
    CHECK_RUNTIME(range.lowest <= range.highest,
                  "In ChooseQuantizationParams, min should be less than or equal to max");
    const Quantization chosen = choose_quantization(range, reduce_range);
    call.input = {chosen.scale, signed_zero_point(DType::u8, chosen.zero_point)};
    return run_float(call, type);
}

PerRow checked_per_row(bool symmetric, bool narrow_range) {
    CHECK_VALUE(symmetric || !narrow_range, kDynamic, "narrow_range is True, expected False where symmetric is");
    const PerRow around_0 = narrow_range ? PerRow::narrow : PerRow::symmetric;
    return symmetric ? around_0 : PerRow::asymmetric;
}

Tensor run_dynamic_row(const Tensor& x, const Tensor& packed, PerRow per_row, std::optional<ScalarType> output_dtype,
                       const PostOp& post) {
    auto [call, type] = float_call(kDynamic, x, packed, output_dtype, post);
    call.per_row = per_row;
    return run_float(call, type);
}

} // namespace

Tensor linear(const Tensor& x, const Tensor& packed, double output_scale, int64_t output_zero_point,
              std::optional<ScalarType> output_dtype, Text activation, double negative_slope) {
    constexpr const char* op = "acl_qlinear::linear: ";
    const ScalarType x_dtype = x.scalar_type();
    const bool is_signed = x_dtype == ScalarType::QInt8;
    CHECK_TYPE((is_signed || x_dtype == ScalarType::QUInt8) && is_plain_cpu(x), op, "x is ", describe(x),
               ", expected a quint8 or qint8 CPU tensor");
    const auto quantization = host::per_tensor_quantization(x);
    CHECK_VALUE(quantization, op, "x is ", describe(x),
                " with a scale for each channel, expected one quantized per tensor");
    const PostOp post = checked_activation(op, {activation, negative_slope});
    const PackedWeight weight = checked_weight(op, packed);
    check_columns(op, x, weight);
    const ScalarType type = output_dtype.value_or(x_dtype);
    CHECK_TYPE(type == x_dtype || is_float(type), op, "output_dtype is ", type, ", expected ", x_dtype,
               ", as x, float32, bfloat16 or float16");
    const DType y_type = dtype_of(op, "output_dtype", type);
    const DType x_type = is_signed ? DType::s8 : DType::u8;
    const Quantization input = checked_quantization(op, "x", {quantization->first, quantization->second}, x_type);
    const Call call{op, x.contiguous(), x_type, input, weight, post};
    if (!is_8bit(y_type)) {
        Tensor y = host::empty(call.output_sizes(), type);
        run(call, y, y_type, {});
        return y;
    }
    const Quantization output = checked_quantization(op, "output", {output_scale, output_zero_point}, y_type);
    return host::make_quantized(call.output_sizes(), type, output_scale, output_zero_point,
                                [&](const Tensor& y) { run(call, y, y_type, output); });
}

Tensor linear_int8(const Tensor& x, double x_scale, int64_t x_zero_point, const Tensor& packed, double output_scale,
                   int64_t output_zero_point, std::optional<ScalarType> output_dtype, Text activation,
                   double negative_slope) {
    constexpr const char* op = "acl_qlinear::linear_int8: ";
    const Call call = plain_call(op, x, {x_scale, x_zero_point}, packed, {activation, negative_slope});
    const auto type = output_dtype.value_or(is_8bit(call.x_type) ? ScalarType::Float : x.scalar_type());
    CHECK_TYPE(type != ScalarType::QInt8 && type != ScalarType::QUInt8, op, "output_dtype is ", type,
               ", expected int8, uint8, float32, bfloat16 or float16");
    dtype_of(op, "output_dtype", type);
    Tensor y = host::empty(call.output_sizes(), type);
    run_plain(call, y, {output_scale, output_zero_point});
    return y;
}

void linear_int8_out(const Tensor& x, double x_scale, int64_t x_zero_point, const Tensor& packed, double output_scale,
                     int64_t output_zero_point, Text activation, double negative_slope, const Tensor& out) {
    constexpr const char* op = "acl_qlinear::linear_int8: ";
    const Call call = plain_call(op, host::resolved(x), {x_scale, x_zero_point}, packed, {activation, negative_slope});
    const Sizes sizes = call.output_sizes();
    check_not_quantized(op, "out", out);
    host::check_writable(op, out);
    CHECK_VALUE(is_plain_cpu(out) && out.sizes() == Shape(sizes), op, "out is ", describe(out), ", expected shape ",
                Shape(sizes), " on cpu");
    CHECK_VALUE(!share_memory(out, packed), op, "out shares memory with packed, expected memory of its own");
    check_no_internal_overlap(op, out);
    // In place, or nearly: rows that are written may still have to be read.
    const bool is_direct = out.is_contiguous() && !share_memory(out, call.x);
    const Tensor y = is_direct ? out : host::empty(sizes, out.scalar_type());
    host::about_to_write(out);
    run_plain(call, y, {output_scale, output_zero_point});
    if (!is_direct) {
        host::copy(y, out);
    }
}

Tensor linear_static(const Tensor& x, const Tensor& packed, double x_scale, int64_t x_zero_point, Text activation,
                     double negative_slope) {
    const PostOp post = checked_activation(kStatic, {activation, negative_slope});
    return run_static(x, packed, {x_scale, x_zero_point}, post);
}

Tensor linear_static_alone(const Tensor& x, const Tensor& packed, double x_scale, int64_t x_zero_point) {
    return run_static(x, packed, {x_scale, x_zero_point}, kNoActivation);
}

Tensor linear_dynamic(const Tensor& x, const Tensor& packed, bool reduce_range, std::optional<ScalarType> output_dtype,
                      Text activation, double negative_slope) {
    const PostOp post = checked_activation(kDynamic, {activation, negative_slope});
    return run_dynamic(x, packed, reduce_range, output_dtype, post);
}

Tensor linear_dynamic_alone(const Tensor& x, const Tensor& packed, bool reduce_range) {
    return run_dynamic(x, packed, reduce_range, std::nullopt, kNoActivation);
}

Tensor linear_dynamic_row(const Tensor& x, const Tensor& packed, bool symmetric, bool narrow_range,
                          std::optional<ScalarType> output_dtype, Text activation, double negative_slope) {
    const PostOp post = checked_activation(kDynamic, {activation, negative_slope});
    return run_dynamic_row(x, packed, checked_per_row(symmetric, narrow_range), output_dtype, post);
}

Tensor linear_dynamic_row_alone(const Tensor& x, const Tensor& packed, bool symmetric, bool narrow_range) {
    return run_dynamic_row(x, packed, checked_per_row(symmetric, narrow_range), std::nullopt, kNoActivation);
}

Quantization checked_quantization(const char* op, const char* name, const QuantizationArguments& given, DType type) {
    constexpr double lowest_scale = std::numeric_limits<float>::min();
    CHECK_VALUE(given.scale >= lowest_scale && given.scale <= 1 / lowest_scale, op, name, "_scale is ", given.scale,
                ", expected a number from ", lowest_scale, " to ", 1 / lowest_scale);
    const int64_t lowest = type == DType::u8 ? 0 : -128;
    CHECK_VALUE(given.zero_point >= lowest && given.zero_point <= lowest + 255, op, name, "_zero_point is ",
                given.zero_point, ", expected ", lowest, " to ", lowest + 255, " for ",
                type == DType::u8 ? "uint8" : "int8");
    return {given.scale, static_cast<int32_t>(given.zero_point)};
}

void check_fallback(const char* op, bool has_zero_points) {
    CHECK_VALUE(!has_zero_points || !is_fallback_forbidden.load(std::memory_order_relaxed), op,
                "weight has a zero point that is not 0, which needs the fallback, and forbid_fallback() has "
                "been called: quantize the weight symmetrically, or call forbid_fallback(False)");
}

void forbid_fallback(bool forbidden) {
    is_fallback_forbidden = forbidden;
}

int64_t fallback_calls() {
    return fallbacks;
}

} // namespace acl_qlinear::operators
