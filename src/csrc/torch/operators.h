// SPDX-License-Identifier: MIT
// The operators, as PyTorch is given them; acl_qlinear/ops.py documents them.
#pragma once

#include <optional>
#include <string>
#include <tuple>

#include "engine/parallel.h"
#include "torch/host.h"

namespace acl_qlinear::operators {

using host::ScalarType;
using host::Tensor;
using host::Text;

Tensor prepack_int8(const Tensor& weight, const Tensor& scale, const std::optional<Tensor>& zero_point,
                    const std::optional<Tensor>& bias, const std::optional<Tensor>& pre_scale);

std::tuple<Tensor, Tensor, Tensor, Tensor> unpack(const Tensor& packed);

// Without elements where the weight has none.
Tensor pre_scale(const Tensor& packed);

std::string kernel_name(const Tensor& packed);

Tensor linear(const Tensor& x, const Tensor& packed, double output_scale, int64_t output_zero_point,
              std::optional<ScalarType> output_dtype, Text activation, double negative_slope);

Tensor linear_int8(const Tensor& x, double x_scale, int64_t x_zero_point, const Tensor& packed, double output_scale,
                   int64_t output_zero_point, std::optional<ScalarType> output_dtype, Text activation,
                   double negative_slope);

void linear_int8_out(const Tensor& x, double x_scale, int64_t x_zero_point, const Tensor& packed, double output_scale,
                     int64_t output_zero_point, Text activation, double negative_slope, const Tensor& out);

Tensor linear_static(const Tensor& x, const Tensor& packed, double x_scale, int64_t x_zero_point, Text activation,
                     double negative_slope);

Tensor linear_dynamic(const Tensor& x, const Tensor& packed, bool reduce_range, std::optional<ScalarType> output_dtype,
                      Text activation, double negative_slope);

Tensor linear_dynamic_row(const Tensor& x, const Tensor& packed, bool symmetric, bool narrow_range,
                          std::optional<ScalarType> output_dtype, Text activation, double negative_slope);

// What a layer without an activation function calls: every argument costs, and inductor's C++ wrapper would call an
// operator with a string through Python.
Tensor linear_static_alone(const Tensor& x, const Tensor& packed, double x_scale, int64_t x_zero_point);
Tensor linear_dynamic_alone(const Tensor& x, const Tensor& packed, bool reduce_range);
Tensor linear_dynamic_row_alone(const Tensor& x, const Tensor& packed, bool symmetric, bool narrow_range);

Tensor add(const Tensor& a, const Tensor& b, double output_scale, int64_t output_zero_point, bool relu);

// torch.ops.quantized.add and add_relu, by `add` where it does the same.
Tensor quantized_add(const Tensor& qa, const Tensor& qb, double scale, int64_t zero_point);
Tensor quantized_add_relu(const Tensor& qa, const Tensor& qb, double scale, int64_t zero_point);

void forbid_fallback(bool forbidden);

int64_t fallback_calls();

// The schemas. Those without a function below have their kernels in acl_qlinear/ops.py.
constexpr const char* schemas[] = {
    "prepack(Tensor weight, Tensor? bias=None) -> Tensor",
    "prepack_int8(Tensor weight, Tensor scale, Tensor? zero_point=None, Tensor? bias=None, "
    "Tensor? pre_scale=None) -> Tensor",
    "unpack(Tensor packed) -> (Tensor weight, Tensor scale, Tensor zero_point, Tensor bias)",
    "pre_scale(Tensor packed) -> Tensor",
    "kernel_name(Tensor packed) -> str",
    "linear(Tensor x, Tensor packed, float output_scale, int output_zero_point, ScalarType? output_dtype=None, "
    "str activation=\"none\", float negative_slope=0.01) -> Tensor",
    "linear_int8(Tensor x, float x_scale, int x_zero_point, Tensor packed, float output_scale=1.0, "
    "int output_zero_point=0, ScalarType? output_dtype=float, str activation=\"none\", "
    "float negative_slope=0.01) -> Tensor",
    "linear_int8_out(Tensor x, float x_scale, int x_zero_point, Tensor packed, float output_scale, "
    "int output_zero_point, str activation, float negative_slope, Tensor(a!) out) -> ()",
    "linear_static(Tensor x, Tensor packed, float x_scale, int x_zero_point, str activation=\"none\", "
    "float negative_slope=0.01) -> Tensor",
    "linear_dynamic(Tensor x, Tensor packed, bool reduce_range=False, ScalarType? output_dtype=None, "
    "str activation=\"none\", float negative_slope=0.01) -> Tensor",
    "linear_dynamic_row(Tensor x, Tensor packed, bool symmetric=False, bool narrow_range=False, "
    "ScalarType? output_dtype=None, str activation=\"none\", float negative_slope=0.01) -> Tensor",
    "linear_static_alone(Tensor x, Tensor packed, float x_scale, int x_zero_point) -> Tensor",
    "linear_dynamic_alone(Tensor x, Tensor packed, bool reduce_range) -> Tensor",
    "linear_dynamic_row_alone(Tensor x, Tensor packed, bool symmetric, bool narrow_range) -> Tensor",
    "add(Tensor a, Tensor b, float output_scale, int output_zero_point, bool relu=False) -> Tensor",
    "quantized_add(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor",
    "quantized_add_relu(Tensor qa, Tensor qb, float scale, int zero_point) -> Tensor",
    "no_gradient(Tensor gradient, int in_features, str layer) -> Tensor",
    "forbid_fallback(bool forbidden=True) -> ()",
    "fallback_calls() -> int",
};

// Calls implement.add<function>(name) for each operator that has a function here.
template <typename Implement> void implement_all(Implement&& implement) {
    implement.template add<prepack_int8>("prepack_int8");
    implement.template add<unpack>("unpack");
    implement.template add<pre_scale>("pre_scale");
    implement.template add<kernel_name>("kernel_name");
    implement.template add<linear>("linear");
    implement.template add<linear_int8>("linear_int8");
    implement.template add<linear_int8_out>("linear_int8_out");
    implement.template add<linear_static>("linear_static");
    implement.template add<linear_dynamic>("linear_dynamic");
    implement.template add<linear_dynamic_row>("linear_dynamic_row");
    implement.template add<linear_static_alone>("linear_static_alone");
    implement.template add<linear_dynamic_alone>("linear_dynamic_alone");
    implement.template add<linear_dynamic_row_alone>("linear_dynamic_row_alone");
    implement.template add<operators::add>("add");
    implement.template add<quantized_add>("quantized_add");
    implement.template add<quantized_add_relu>("quantized_add_relu");
    implement.template add<forbid_fallback>("forbid_fallback");
    implement.template add<fallback_calls>("fallback_calls");
}

// PyTorch's threads, one inside a parallel region and after a fork.
Parallel threads();

} // namespace acl_qlinear::operators
