// SPDX-License-Identifier: MIT
// Sums of quantized tensors.
#include "engine/add.h"

#include <exception>

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

// Whether `add` does what PyTorch does, but for numbers out of range.
bool is_for_add(const Tensor& a, const Tensor& b) {
    const ScalarType type = a.scalar_type();
    return (type == ScalarType::QInt8 || type == ScalarType::QUInt8) && b.scalar_type() == type && is_plain_cpu(a) &&
           is_plain_cpu(b) && a.sizes() == b.sizes() && host::are_laid_out_alike(a, b);
}

Tensor by_add_or_pytorch(const Tensor& a, const Tensor& b, double scale, int64_t zero_point, bool relu) {
    if (!is_for_add(a, b)) {
        return host::quantized_add(a, b, scale, zero_point, relu);
    }
    try {
        return add(a, b, scale, zero_point, relu);
    } catch (const std::exception&) {
        // A number is out of range. PyTorch takes it, or has an error of its own.
        return host::quantized_add(a, b, scale, zero_point, relu);
    }
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
    const bool are_alike = host::are_laid_out_alike(a, b);
    const Tensor left = are_alike ? a : a.contiguous(), right = are_alike ? b : b.contiguous();
    const Input left_input{integer, left.const_data_ptr(), quantization_of("a", a, integer)};
    const Input right_input{integer, right.const_data_ptr(), quantization_of("b", b, integer)};
    const Quantization output = checked_quantization(kAdd, "output", {output_scale, output_zero_point}, integer);
    return host::make_quantized_like(left, output_scale, output_zero_point, [&](const Tensor& y) {
        const AddCall call{left.numel(), left_input, right_input, {integer, y.mutable_data_ptr(), output}, relu};
        value_errors(kAdd, "", [&] { acl_qlinear::add(call, threads()); });
    });
}

Tensor quantized_add(const Tensor& qa, const Tensor& qb, double scale, int64_t zero_point) {
    return by_add_or_pytorch(qa, qb, scale, zero_point, false);
}

Tensor quantized_add_relu(const Tensor& qa, const Tensor& qb, double scale, int64_t zero_point) {
    return by_add_or_pytorch(qa, qb, scale, zero_point, true);
}

} // namespace acl_qlinear::operators
