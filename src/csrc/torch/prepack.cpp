// SPDX-License-Identifier: MIT
// Weights: packing, unpacking, and what a packed one says of itself.
#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/packed_weight.h"
#include "torch/checks.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

// The values of a tensor of any integers, or of any floating-point numbers.
template <typename T> std::vector<T> values_of(const Tensor& t, ScalarType type) {
    const Tensor all = host::converted(t, type);
    const T* const begin = all.const_data_ptr<T>();
    return {begin, begin + all.numel()};
}

// As int32, which would hold other values for some integers.
std::vector<int32_t> checked_zero_points(const char* op, const Tensor& zero_point) {
    const std::vector<int64_t> values = values_of<int64_t>(zero_point, ScalarType::Long);
    for (size_t i = 0; i < values.size(); ++i) {
        CHECK_VALUE(values[i] >= -128 && values[i] <= 127, op, "weight zero point ", i, " is ", values[i],
                    ", expected -128 to 127");
    }
    return {values.begin(), values.end()};
}

template <typename T> void expand(std::vector<T>& values, size_t count) {
    if (values.size() == 1) {
        values.assign(count, T(values.front()));
    }
}

// One float32 value for each "input" or "output" feature, contiguous; undefined where nothing is given.
Tensor checked_floats(const char* op, const char* name, const std::optional<Tensor>& given, int64_t count,
                      const char* features) {
    if (!given.has_value() || !given->defined()) {
        return {};
    }
    CHECK_TYPE(given->scalar_type() == ScalarType::Float && is_plain_cpu(*given), op, name, " is ", describe(*given),
               ", expected a float32 CPU tensor");
    CHECK_VALUE(given->dim() == 1 && given->size(0) == count, op, name, " has shape ", given->sizes(), ", expected [",
                count, "], one value per ", features, " feature");
    return given->contiguous();
}

bool is_floating_point(ScalarType type) {
    return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
           type == ScalarType::BFloat16;
}

bool is_integer(ScalarType type) {
    return type == ScalarType::Char || type == ScalarType::Byte || type == ScalarType::Short ||
           type == ScalarType::Int || type == ScalarType::Long || type == ScalarType::UInt16 ||
           type == ScalarType::UInt32 || type == ScalarType::UInt64;
}

// A tensor [count] with these values; data: nullptr for zeros.
Tensor tensor_of(const void* data, int64_t count, ScalarType type) {
    Tensor t = host::empty(Sizes{count}, type);
    if (data) {
        std::memcpy(t.mutable_data_ptr(), data, t.nbytes());
    } else {
        std::memset(t.mutable_data_ptr(), 0, t.nbytes());
    }
    return t;
}

} // namespace

Tensor prepack_int8(const Tensor& weight, const Tensor& scale, const std::optional<Tensor>& zero_point,
                    const std::optional<Tensor>& bias, const std::optional<Tensor>& pre_scale) {
    constexpr const char* op = "acl_qlinear::prepack_int8: ";
    CHECK_TYPE(weight.scalar_type() == ScalarType::Char && is_plain_cpu(weight), op, "weight is ", describe(weight),
               ", expected an int8 CPU tensor");
    CHECK_TYPE(is_floating_point(scale.scalar_type()) && is_plain_cpu(scale), op, "scale is ", describe(scale),
               ", expected a floating-point CPU tensor");
    CHECK_VALUE(weight.dim() == 2, op, "weight has shape ", weight.sizes(), ", expected [out_features, in_features]");
    const int64_t N = weight.size(0);
    const auto check_size = [&](const char* name, const Tensor& t) {
        CHECK_VALUE(t.dim() <= 1 && (t.numel() == 1 || t.numel() == N), op, name, " has shape ", t.sizes(),
                    ", expected [1] or [", N, "], one value per output feature");
    };
    check_size("scale", scale);
    std::vector<double> scales = values_of<double>(scale, ScalarType::Double);
    std::vector<int32_t> zero_points;
    if (zero_point.has_value() && zero_point->defined()) {
        CHECK_TYPE(is_integer(zero_point->scalar_type()) && is_plain_cpu(*zero_point), op, "zero_point is ",
                   describe(*zero_point), ", expected a CPU tensor of integers");
        check_size("zero_point", *zero_point);
        zero_points = checked_zero_points(op, *zero_point);
        const size_t count = std::max(scales.size(), zero_points.size());
        expand(scales, count);
        expand(zero_points, count);
    }
    const Tensor bias_values = checked_floats(op, "bias", bias, N, "output");
    const Tensor pre_scales = checked_floats(op, "pre_scale", pre_scale, weight.size(1), "input");
    const Tensor values = weight.contiguous();
    const bool has_zero_points = std::any_of(zero_points.begin(), zero_points.end(), [](int32_t z) { return z != 0; });
    check_fallback(op, has_zero_points);

    WeightSource source{};
    source.values = values.const_data_ptr<int8_t>();
    source.N = N;
    source.K = weight.size(1);
    source.scales = scales.data();
    source.scale_count = static_cast<int64_t>(scales.size());
    source.bias = bias_values.defined() ? bias_values.const_data_ptr<float>() : nullptr;
    source.zero_points = has_zero_points ? zero_points.data() : nullptr;
    source.pre_scale = pre_scales.defined() ? pre_scales.const_data_ptr<float>() : nullptr;

    const PackPlan plan = value_errors(op, "", [&] { return plan_packing(source); });
    // So that out_features is known without looking into it, as fake kernels must.
    Tensor packed = host::empty(Sizes{N, static_cast<int64_t>(plan.size) / N}, ScalarType::Byte);
    acl_qlinear::pack(source, plan, packed.mutable_data_ptr());
    return packed;
}

PackedWeight checked_weight(const char* op, const Tensor& packed) {
    CHECK_TYPE(packed.scalar_type() == ScalarType::Byte && is_plain_cpu(packed) && packed.is_contiguous(), op,
               "packed is ", describe(packed), ", expected the tensor that acl_qlinear::prepack returned");
    const PackedWeight weight = value_errors(
        op, "packed is not usable: ", [&] { return checked_view(packed.const_data_ptr(), packed.nbytes()); });
    CHECK_VALUE(packed.dim() == 2 && packed.size(0) == weight.N, op, "packed has shape ", packed.sizes(),
                ", expected [", weight.N, ", ", packed.nbytes() / static_cast<size_t>(weight.N),
                "], as acl_qlinear::prepack returned it");
    return weight;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> unpack(const Tensor& packed) {
    const PackedWeight weight = checked_weight("acl_qlinear::unpack: ", packed);
    const Tensor values = host::empty(Sizes{weight.N, weight.K}, ScalarType::Char);
    acl_qlinear::unpack(weight, values.mutable_data_ptr<int8_t>());
    return {values, tensor_of(weight.scales, weight.scale_count, ScalarType::Double),
            tensor_of(weight.zero_points, weight.scale_count, ScalarType::Int),
            tensor_of(weight.bias, weight.bias_was_given ? weight.N : 0, ScalarType::Float)};
}

Tensor pre_scale(const Tensor& packed) {
    const PackedWeight weight = checked_weight("acl_qlinear::pre_scale: ", packed);
    return tensor_of(weight.pre_scale, weight.pre_scale ? weight.K : 0, ScalarType::Float);
}

std::string kernel_name(const Tensor& packed) {
    return checked_weight("acl_qlinear::kernel_name: ", packed).family->name;
}

} // namespace acl_qlinear::operators
