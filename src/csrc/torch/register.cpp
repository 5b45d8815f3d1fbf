// SPDX-License-Identifier: MIT
// What PyTorch, and the Python that loads this library, see of it.
#include <torch/library.h>

#include "kernels/acl_kernels.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {

// The library that our calls of ACL go to: another one in the process, in everybody's scope,
// would come before ours.
extern "C" [[gnu::visibility("default")]] const char* acl_qlinear_arm_compute_path() {
    return acl::library_path();
}

// Fake kernels are in acl_qlinear/ops.py.
TORCH_LIBRARY(acl_qlinear, m) {
    m.def("prepack(Tensor weight, Tensor? bias=None) -> Tensor");
    m.def("prepack_int8(Tensor weight, Tensor scale, Tensor? zero_point=None, Tensor? bias=None) -> Tensor");
    m.def("unpack(Tensor packed) -> (Tensor weight, Tensor scale, Tensor zero_point, Tensor bias)");
    m.def("kernel_name(Tensor packed) -> str");
    m.def("linear(Tensor x, Tensor packed, float output_scale, int output_zero_point, ScalarType? output_dtype=None, "
          "str activation=\"none\", float negative_slope=0.01) -> Tensor");
    m.def("linear_int8(Tensor x, float x_scale, int x_zero_point, Tensor packed, float output_scale=1.0, "
          "int output_zero_point=0, ScalarType? output_dtype=float, str activation=\"none\", "
          "float negative_slope=0.01) -> Tensor");
    m.def("linear_int8_out(Tensor x, float x_scale, int x_zero_point, Tensor packed, float output_scale, "
          "int output_zero_point, str activation, float negative_slope, Tensor(a!) out) -> ()");
    m.def("linear_dynamic(Tensor x, Tensor packed, bool reduce_range=False, ScalarType? output_dtype=None, "
          "str activation=\"none\", float negative_slope=0.01) -> Tensor");
    m.def("no_gradient(Tensor gradient, int in_features, str layer) -> Tensor");
    m.def("forbid_fallback(bool forbidden=True) -> ()", forbid_fallback);
    m.def("fallback_calls() -> int", fallback_calls);
}

namespace {

void implement(torch::Library& m) {
    m.impl("prepack", prepack);
    m.impl("prepack_int8", prepack_int8);
    m.impl("unpack", unpack);
    m.impl("kernel_name", kernel_name);
    m.impl("linear", linear);
    m.impl("linear_int8", linear_int8);
    m.impl("linear_int8_out", linear_int8_out);
    m.impl("linear_dynamic", linear_dynamic);
    m.impl("no_gradient", no_gradient);
}

} // namespace

// For tensors of every kind and device, so that those of a wrong one reach the checks.
TORCH_LIBRARY_IMPL(acl_qlinear, CompositeExplicitAutograd, m) {
    implement(m);
}

TORCH_LIBRARY_IMPL(acl_qlinear, Autograd, m) {
    implement_autograd(m);
}

// PyTorch's fallback for views of negatives and conjugates looks for what was written among the results,
// and there are none.
TORCH_LIBRARY_IMPL(acl_qlinear, Negative, m) {
    m.impl("linear_int8_out", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(acl_qlinear, Conjugate, m) {
    m.impl("linear_int8_out", torch::CppFunction::makeFallthrough());
}

} // namespace acl_qlinear::operators
