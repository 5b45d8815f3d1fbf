// SPDX-License-Identifier: MIT
// What the operators check alike. `op` is "acl_qlinear::<name>: ", with which messages begin.
#pragma once

#include <stdexcept>

#include "engine/packed_weight.h"
#include "engine/types.h"
#include "torch/host.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {

using host::describe;
using host::is_plain_cpu;
using host::ScalarType;
using host::Shape;
using host::Sizes;

// The engine reports bad input as std::invalid_argument; PyTorch as ValueError.
template <typename F> auto value_errors(const char* op, const char* what, const F& body) {
    try {
        return body();
    } catch (const std::invalid_argument& e) {
        CHECK_VALUE(false, op, what, e.what());
    }
}

// `packed`, if it is what prepack returns.
PackedWeight checked_weight(const char* op, const Tensor& packed);

// A scale and a zero point as they come, before they are checked.
struct QuantizationArguments {
    double scale;
    int64_t zero_point;
};

// name: "x" or "output", for instance. Both the scale and its reciprocal are used as fp32.
Quantization checked_quantization(const char* op, const char* name, const QuantizationArguments& given, DType type);

// Weights with a zero point, which ACL does not have, cost a pass over activations and
// accumulators: the fallback. Raises where it has been forbidden.
void check_fallback(const char* op, bool has_zero_points);

} // namespace acl_qlinear::operators
