// SPDX-License-Identifier: MIT
#pragma once

#include <torch/library.h>

namespace acl_qlinear::operators {

// The operators' kernels for tensors that may require a gradient.
void implement_autograd(torch::Library& m);

} // namespace acl_qlinear::operators
