// SPDX-License-Identifier: MIT
// Sums of quantized tensors.
#include "engine/add.h"

#include "torch/checks.h"
#include "torch/host.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

constexpr const char* kAdd = "acl_qlinear::add: ";

Quantization quantization_of(const char* name, const Tensor& t, DType type) {
    const auto found = host::per_tensor_quantization(t);
    CHECK_VALUE(found, kAdd, name, " is ", describe(t),
                " with a scale for each channel, expected one quantized per tensor");
    return checked_quantization(kAdd, name, {found->first, found->second}, type);
}

} // namespace

Tensor add(const Tensor& a, const Tensor& b, double output_scale, int64_t output_zero_point, bool relu) {
    const ScalarType type = a.scalar_type();
    const bool is_signed = type == ScalarType::QInt8;
    CHECK_TYPE((is_signed || type == ScalarType::QUInt8) && is_plain_cpu(a), kAdd, "a is ", describe(a),
               ", expected a quint8 or qint8 CPU tensor");
    CHECK_TYPE(b.scalar_type() == type && is_plain_cpu(b), kAdd, "b is ", describe(b), ", expected a ", type,
               " CPU tensor, as a");
    CHECK_VALUE(b.sizes() == a.sizes(), kAdd, "b has shape ", b.sizes(), ", expected ", a.sizes(),
                ", as a: nothing is broadcast");
    const DType integer = is_signed ? DType::s8 : DType::u8;
    const Tensor left = a.contiguous(), right = b.contiguous();
    const Input left_input{integer, left.const_data_ptr(), quantization_of("a", a, integer)};
    const Input right_input{integer, right.const_data_ptr(), quantization_of("b", b, integer)};
    const Quantization output = checked_quantization(kAdd, "output", {output_scale, output_zero_point}, integer);
    const Shape given = a.sizes();
    return host::make_quantized(
        Sizes(given.begin(), given.end()), type, output_scale, output_zero_point, [&](const Tensor& y) {
            const AddCall call{left.numel(), left_input, right_input, {integer, y.mutable_data_ptr(), output}, relu};
            value_errors(kAdd, "", [&] { acl_qlinear::add(call, threads()); });
        });
}

} // namespace acl_qlinear::operators
