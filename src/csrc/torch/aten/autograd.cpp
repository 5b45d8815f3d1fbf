// SPDX-License-Identifier: MIT
// Gradients: the layers have none, and say so where one is asked for, instead of giving zeros.
#include "torch/aten/autograd.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

using host::find_operator;
using torch::autograd::Node;
using torch::autograd::variable_list;

// In the graph of y = op(x). Calls an operator, which tracing records and a run of the trace raises in.
struct NoGradient final : Node {
    std::string layer;
    int64_t in_features = 0;

protected:
    variable_list apply(variable_list&& gradients) override {
        static const auto op = find_operator<Tensor(const Tensor&, int64_t, Text)>("acl_qlinear::no_gradient");
        return {op.call(gradients[0], in_features, layer)};
    }
};

void check_forward_gradient(const char* op, const Tensor& t) {
    TORCH_CHECK_NOT_IMPLEMENTED(!torch::autograd::isFwGradDefined(t), op,
                                " has no derivative, since its layers are for inference: differentiate the float "
                                "model, or detach() the layer's input");
}

// y, with an error in place of its gradient where x requires one.
Tensor without_gradient(const char* op, const Tensor& x, Tensor y) {
    check_forward_gradient(op, x);
    if (torch::autograd::compute_requires_grad(x)) {
        const auto node = std::shared_ptr<NoGradient>(new NoGradient, torch::autograd::deleteNode);
        // size() would ask for all sizes as numbers, and so fix those that a compiler leaves open.
        const auto last = [](const Tensor& t) { return t.sym_size(-1).guard_int(__FILE__, __LINE__); };
        node->in_features = last(x);
        node->layer = c10::str(op, " (in_features=", last(x), ", out_features=", last(y), ")");
        node->set_next_edges(torch::autograd::collect_next_edges(x));
        torch::autograd::set_history(y, node);
    }
    return y;
}

// Whether nothing is between here and the operator: it is called without a second walk through the dispatcher.
bool is_direct(c10::DispatchKeySet keys, const Tensor& x) {
    return (keys & c10::after_ADInplaceOrView_keyset).highestPriorityTypeId() == c10::DispatchKey::CPU &&
           !x.requires_grad() && !torch::autograd::isFwGradDefined(x);
}

// Calls an operator as it is for tensors without gradients.
template <typename Signature, typename... Arguments>
decltype(auto) call_below(const c10::TypedOperatorHandle<Signature>& op, c10::DispatchKeySet keys,
                          Arguments&&... arguments) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return op.redispatch(keys & c10::after_ADInplaceOrView_keyset, std::forward<Arguments>(arguments)...);
}

constexpr char kInt8[] = "acl_qlinear::linear_int8", kInt8Out[] = "acl_qlinear::linear_int8_out";
constexpr char kStatic[] = "acl_qlinear::linear_static", kStaticAlone[] = "acl_qlinear::linear_static_alone";
constexpr char kDynamic[] = "acl_qlinear::linear_dynamic", kDynamicAlone[] = "acl_qlinear::linear_dynamic_alone";
constexpr char kDynamicRow[] = "acl_qlinear::linear_dynamic_row";
constexpr char kDynamicRowAlone[] = "acl_qlinear::linear_dynamic_row_alone";

// Operators whose first argument is the only one that may require a gradient. name: what errors say.
template <auto function, const char* operator_name, const char* name> struct WithoutGradient;

template <typename... Rest, Tensor (*function)(const Tensor&, Rest...), const char* operator_name, const char* name>
struct WithoutGradient<function, operator_name, name> {
    static Tensor call(c10::DispatchKeySet keys, const Tensor& x, Rest... rest) {
        if (is_direct(keys, x)) {
            return function(x, rest...);
        }
        static const auto op = find_operator<Tensor(const Tensor&, Rest...)>(operator_name);
        return without_gradient(name, x, call_below(op, keys, x, rest...));
    }
};

template <auto function, const char* operator_name, const char* name = operator_name>
void implement(torch::Library& m) {
    m.impl(operator_name, WithoutGradient<function, operator_name, name>::call);
}

void linear_int8_out_autograd(c10::DispatchKeySet keys, const Tensor& x, double x_scale, int64_t x_zero_point,
                              const Tensor& packed, double output_scale, int64_t output_zero_point, Text activation,
                              double negative_slope, const Tensor& out) {
    static const auto op = find_operator<decltype(linear_int8_out)>(kInt8Out);
    check_forward_gradient(kInt8Out, x);
    check_forward_gradient(kInt8Out, out);
    TORCH_CHECK(!torch::autograd::compute_requires_grad(x, out), kInt8Out,
                ": x or out requires grad, expected neither with out=: call it in torch.no_grad()");
    call_below(op, keys, x, x_scale, x_zero_point, packed, output_scale, output_zero_point, activation, negative_slope,
               out);
}

} // namespace

void implement_autograd(torch::Library& m) {
    // Quantized tensors require no gradient.
    m.impl("linear", torch::CppFunction::makeFallthrough());
    m.impl("add", torch::CppFunction::makeFallthrough());
    m.impl("quantized_add", torch::CppFunction::makeFallthrough());
    m.impl("quantized_add_relu", torch::CppFunction::makeFallthrough());
    m.impl(kInt8Out, linear_int8_out_autograd);
    implement<linear_int8, kInt8>(m);
    implement<linear_static, kStatic>(m);
    implement<linear_static_alone, kStaticAlone, kStatic>(m);
    implement<linear_dynamic, kDynamic>(m);
    implement<linear_dynamic_alone, kDynamicAlone, kDynamic>(m);
    implement<linear_dynamic_row, kDynamicRow, kDynamic>(m);
    implement<linear_dynamic_row_alone, kDynamicRowAlone, kDynamic>(m);
}

} // namespace acl_qlinear::operators
