// SPDX-License-Identifier: MIT
// What the operators check alike. `op` is "acl_qlinear::<name>: ", with which messages begin.
#pragma once

#include <ATen/ATen.h>

#include <stdexcept>
#include <string>

#include "engine/packed_weight.h"

namespace acl_qlinear::operators {

inline std::string describe(const at::Tensor& t) {
    if (!t.defined()) {
        return "None";
    }
    const std::string layout = t.layout() == at::kStrided ? "" : c10::str(", layout ", t.layout());
    return c10::str(t.scalar_type(), " ", t.sizes(), " on ", t.device(), layout);
}

// A tensor whose elements can be read where its strides say.
inline bool is_plain_cpu(const at::Tensor& t) {
    return t.defined() && t.device().is_cpu() && t.layout() == at::kStrided && !t.is_nested();
}

// The engine reports bad input as std::invalid_argument; PyTorch as ValueError.
template <typename F> auto value_errors(const char* op, const char* what, const F& body) {
    try {
        return body();
    } catch (const std::invalid_argument& e) {
        TORCH_CHECK_VALUE(false, op, what, e.what());
    }
}

// `packed`, if it is what prepack returns.
PackedWeight checked_weight(const char* op, const at::Tensor& packed);

// Weights with a zero point, which ACL does not have, cost a pass over activations and
// accumulators: the fallback. Raises where it has been forbidden.
void check_fallback(const char* op, bool has_zero_points);

} // namespace acl_qlinear::operators
