// SPDX-License-Identifier: MIT
// Weights: packing, unpacking, and what a packed one says of itself.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>

#include "engine/packed_weight.h"
#include "torch/checks.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

// As int32, which would hold other values for some integers.
at::Tensor checked_zero_points(const char* op, const at::Tensor& zero_point) {
    const at::Tensor all = zero_point.to(at::kLong).reshape({-1}).contiguous();
    for (int64_t i = 0; i < all.numel(); ++i) {
        const int64_t value = all.const_data_ptr<int64_t>()[i];
        TORCH_CHECK_VALUE(value >= -128 && value <= 127, op, "weight zero point ", i, " is ", value,
                          ", expected -128 to 127");
    }
    return all.to(at::kInt);
}

at::Tensor prepack_values(const char* op, const at::Tensor& weight, const at::Tensor& scale,
                          const std::optional<at::Tensor>& zero_point, const std::optional<at::Tensor>& bias) {
    TORCH_CHECK_VALUE(weight.dim() == 2, op, "weight has shape ", weight.sizes(),
                      ", expected [out_features, in_features]");
    const int64_t N = weight.size(0);
    const auto check_size = [&](const char* name, const at::Tensor& t) {
        TORCH_CHECK_VALUE(t.dim() <= 1 && (t.numel() == 1 || t.numel() == N), op, name, " has shape ", t.sizes(),
                          ", expected [1] or [", N, "], one value per output feature");
    };
    check_size("scale", scale);
    int64_t count = scale.numel();
    at::Tensor bias_values, zero_points;
    if (zero_point.has_value() && zero_point->defined()) {
        check_size("zero_point", *zero_point);
        count = std::max(count, zero_point->numel());
        zero_points = checked_zero_points(op, *zero_point).expand({count}).contiguous();
    }
    if (bias.has_value() && bias->defined()) {
        TORCH_CHECK_TYPE(bias->scalar_type() == at::kFloat && is_plain_cpu(*bias), op, "bias is ", describe(*bias),
                         ", expected a float32 CPU tensor");
        TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == N, op, "bias has shape ", bias->sizes(), ", expected [",
                          N, "], one value per output feature");
        bias_values = bias->contiguous();
    }
    const at::Tensor values = weight.contiguous();
    const at::Tensor scales = scale.to(at::kDouble).reshape({-1}).expand({count}).contiguous();

    WeightSource source{};
    source.values = static_cast<const int8_t*>(values.const_data_ptr());
    source.N = N;
    source.K = weight.size(1);
    source.scales = scales.const_data_ptr<double>();
    source.scale_count = scales.numel();
    source.bias = bias_values.defined() ? bias_values.const_data_ptr<float>() : nullptr;
    source.zero_points = zero_points.defined() && zero_points.count_nonzero().item<int64_t>()
                             ? zero_points.const_data_ptr<int32_t>()
                             : nullptr;
    check_fallback(op, source.zero_points);

    const PackPlan plan = value_errors(op, "", [&] { return plan_packing(source); });
    // So that out_features is known without looking into it, as fake kernels must.
    at::Tensor packed = at::empty({N, static_cast<int64_t>(plan.size) / N}, at::dtype(at::kByte));
    acl_qlinear::pack(source, plan, packed.mutable_data_ptr());
    return packed;
}

} // namespace

at::Tensor prepack(const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    constexpr const char* op = "acl_qlinear::prepack: ";
    TORCH_CHECK_TYPE(weight.scalar_type() == at::kQInt8 && is_plain_cpu(weight), op, "weight is ", describe(weight),
                     ", expected a qint8 CPU tensor");
    if (weight.qscheme() == at::kPerTensorAffine) {
        return prepack_values(op, weight, at::scalar_tensor(weight.q_scale(), at::kDouble),
                              at::scalar_tensor(weight.q_zero_point(), at::kLong), bias);
    }
    TORCH_CHECK_VALUE(weight.qscheme() == at::kPerChannelAffine, op, "weight has scheme ", toString(weight.qscheme()),
                      ", expected per_tensor_affine or per_channel_affine");
    TORCH_CHECK_VALUE(weight.q_per_channel_axis() == 0, op, "weight is quantized along axis ",
                      weight.q_per_channel_axis(), ", expected 0, the output features");
    return prepack_values(op, weight, weight.q_per_channel_scales(), weight.q_per_channel_zero_points(), bias);
}

at::Tensor prepack_int8(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                        const std::optional<at::Tensor>& bias) {
    constexpr const char* op = "acl_qlinear::prepack_int8: ";
    TORCH_CHECK_TYPE(weight.scalar_type() == at::kChar && is_plain_cpu(weight), op, "weight is ", describe(weight),
                     ", expected an int8 CPU tensor");
    TORCH_CHECK_TYPE(scale.is_floating_point() && is_plain_cpu(scale), op, "scale is ", describe(scale),
                     ", expected a floating-point CPU tensor");
    if (zero_point.has_value()) {
        TORCH_CHECK_TYPE(at::isIntegralType(zero_point->scalar_type(), false) && is_plain_cpu(*zero_point), op,
                         "zero_point is ", describe(*zero_point), ", expected a CPU tensor of integers");
    }
    return prepack_values(op, weight, scale, zero_point, bias);
}

PackedWeight checked_weight(const char* op, const at::Tensor& packed) {
    TORCH_CHECK_TYPE(packed.scalar_type() == at::kByte && is_plain_cpu(packed) && packed.is_contiguous(), op,
                     "packed is ", describe(packed), ", expected the tensor that acl_qlinear::prepack returned");
    const PackedWeight weight = value_errors(
        op, "packed is not usable: ", [&] { return checked_view(packed.const_data_ptr(), packed.nbytes()); });
    TORCH_CHECK_VALUE(packed.dim() == 2 && packed.size(0) == weight.N, op, "packed has shape ", packed.sizes(),
                      ", expected [", weight.N, ", ", packed.nbytes() / static_cast<size_t>(weight.N),
                      "], as acl_qlinear::prepack returned it");
    return weight;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> unpack(const at::Tensor& packed) {
    const PackedWeight weight = checked_weight("acl_qlinear::unpack: ", packed);
    const at::Tensor values = at::empty({weight.N, weight.K}, at::kChar);
    acl_qlinear::unpack(weight, values.mutable_data_ptr<int8_t>());
    const auto copy = [](const auto* data, int64_t count, at::ScalarType type) {
        at::Tensor t = at::zeros({count}, type);
        if (data && count) {
            std::memcpy(t.mutable_data_ptr(), data, t.nbytes());
        }
        return t;
    };
    return {values, copy(weight.scales, weight.scale_count, at::kDouble),
            copy(weight.zero_points, weight.scale_count, at::kInt),
            copy(weight.bias, weight.bias_was_given ? weight.N : 0, at::kFloat)};
}

std::string kernel_name(const at::Tensor& packed) {
    return checked_weight("acl_qlinear::kernel_name: ", packed).family->name;
}

} // namespace acl_qlinear::operators
