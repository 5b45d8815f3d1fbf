// SPDX-License-Identifier: MIT
// The operators, as register.cpp gives them to PyTorch; acl_qlinear/ops.py documents them.
#pragma once

#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>

namespace acl_qlinear::operators {

at::Tensor prepack(const at::Tensor& weight, const std::optional<at::Tensor>& bias);

at::Tensor prepack_int8(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                        const std::optional<at::Tensor>& bias);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> unpack(const at::Tensor& packed);

std::string kernel_name(const at::Tensor& packed);

at::Tensor linear(const at::Tensor& x, const at::Tensor& packed, double output_scale, int64_t output_zero_point,
                  std::optional<at::ScalarType> output_dtype, c10::string_view activation, double negative_slope);

at::Tensor linear_int8(const at::Tensor& x, double x_scale, int64_t x_zero_point, const at::Tensor& packed,
                       double output_scale, int64_t output_zero_point, std::optional<at::ScalarType> output_dtype,
                       c10::string_view activation, double negative_slope);

void linear_int8_out(const at::Tensor& x, double x_scale, int64_t x_zero_point, const at::Tensor& packed,
                     double output_scale, int64_t output_zero_point, c10::string_view activation, double negative_slope,
                     const at::Tensor& out);

at::Tensor linear_dynamic(const at::Tensor& x, const at::Tensor& packed, bool reduce_range,
                          std::optional<at::ScalarType> output_dtype, c10::string_view activation,
                          double negative_slope);

// What a gradient is asked of: raises, and says of which layer.
at::Tensor no_gradient(const at::Tensor& gradient, int64_t in_features, c10::string_view layer);

// The operators' kernels for tensors that may require a gradient.
void implement_autograd(torch::Library& m);

void forbid_fallback(bool forbidden);

int64_t fallback_calls();

} // namespace acl_qlinear::operators
