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

// Operators whose first argument is the only one that may require a gradient. op: the name; name: what errors say.
struct LinearInt8 {
    static constexpr auto function = linear_int8;
    static constexpr const char *op = "acl_qlinear::linear_int8", *name = op;
};
struct LinearStatic {
    static constexpr auto function = linear_static;
    static constexpr const char *op = "acl_qlinear::linear_static", *name = op;
};
struct LinearDynamic {
    static constexpr auto function = linear_dynamic;
    static constexpr const char *op = "acl_qlinear::linear_dynamic", *name = op;
};
struct LinearDynamicRow {
    static constexpr auto function = linear_dynamic_row;
    static constexpr const char *op = "acl_qlinear::linear_dynamic_row", *name = LinearDynamic::name;
};
struct LinearStaticAlone {
    static constexpr auto function = linear_static_alone;
    static constexpr const char *op = "acl_qlinear::linear_static_alone", *name = LinearStatic::name;
};
struct LinearDynamicAlone {
    static constexpr auto function = linear_dynamic_alone;
    static constexpr const char *op = "acl_qlinear::linear_dynamic_alone", *name = LinearDynamic::name;
};
struct LinearDynamicRowAlone {
    static constexpr auto function = linear_dynamic_row_alone;
    static constexpr const char *op = "acl_qlinear::linear_dynamic_row_alone", *name = LinearDynamic::name;
};

template <typename Operator, typename Signature = std::remove_pointer_t<decltype(Operator::function)>>
struct WithoutGradient;

template <typename Operator, typename... Rest> struct WithoutGradient<Operator, Tensor(const Tensor&, Rest...)> {
    static Tensor call(c10::DispatchKeySet keys, const Tensor& x, Rest... rest) {
        if (is_direct(keys, x)) {
            return Operator::function(x, rest...);
        }
        static const auto op = find_operator<Tensor(const Tensor&, Rest...)>(Operator::op);
        return without_gradient(Operator::name, x, call_below(op, keys, x, rest...));
    }
};

void linear_int8_out_autograd(c10::DispatchKeySet keys, const Tensor& x, double x_scale, int64_t x_zero_point,
                              const Tensor& packed, double output_scale, int64_t output_zero_point, Text activation,
                              double negative_slope, const Tensor& out) {
    constexpr const char* name = "acl_qlinear::linear_int8_out";
    static const auto op = find_operator<decltype(linear_int8_out)>(name);
    check_forward_gradient(name, x);
    check_forward_gradient(name, out);
    TORCH_CHECK(!torch::autograd::compute_requires_grad(x, out), name,
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
    m.impl("linear_int8", WithoutGradient<LinearInt8>::call);
    m.impl("linear_int8_out", linear_int8_out_autograd);
    m.impl("linear_static", WithoutGradient<LinearStatic>::call);
    m.impl("linear_dynamic", WithoutGradient<LinearDynamic>::call);
    m.impl("linear_dynamic_row", WithoutGradient<LinearDynamicRow>::call);
    m.impl("linear_static_alone", WithoutGradient<LinearStaticAlone>::call);
    m.impl("linear_dynamic_alone", WithoutGradient<LinearDynamicAlone>::call);
    m.impl("linear_dynamic_row_alone", WithoutGradient<LinearDynamicRowAlone>::call);
}

} // namespace acl_qlinear::operators
