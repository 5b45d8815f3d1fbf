// SPDX-License-Identifier: MIT
// What the operators check alike. `op` is "acl_qlinear::<name>: ", with which messages begin.
#pragma once

#include <stdexcept>

#include "engine/packed_weight.h"
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

// Weights with a zero point, which ACL does not have, cost a pass over activations and
// accumulators: the fallback. Raises where it has been forbidden.
void check_fallback(const char* op, bool has_zero_points);

} // namespace acl_qlinear::operators
