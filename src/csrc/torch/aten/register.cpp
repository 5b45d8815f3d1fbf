// SPDX-License-Identifier: MIT
// What PyTorch sees of the library, by ATen.
#include <torch/library.h>

#include "torch/aten/autograd.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

struct Implement {
    torch::Library& library;

    template <auto function> void add(const char* name) { library.impl(name, function); }
};

} // namespace

TORCH_LIBRARY(acl_qlinear, m) {
    for (const char* const schema : schemas) {
        m.def(schema);
    }
}

// For tensors of every kind and device, so that those of a wrong one reach the checks.
TORCH_LIBRARY_IMPL(acl_qlinear, CompositeExplicitAutograd, m) {
    implement_all(Implement{m});
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
