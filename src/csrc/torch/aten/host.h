// SPDX-License-Identifier: MIT
// See ../host.h.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>

#include <optional>
#include <string>
#include <utility>

#include "engine/parallel.h"

#define CHECK_TYPE TORCH_CHECK_TYPE
#define CHECK_VALUE TORCH_CHECK_VALUE
#define CHECK_RUNTIME TORCH_CHECK

namespace acl_qlinear::host {

using at::ScalarType;
using at::Tensor;
using Shape = at::IntArrayRef;
using Sizes = c10::SmallVector<int64_t, 5>;
using Text = c10::string_view;

inline std::string describe(const Tensor& t) {
    if (!t.defined()) {
        return "None";
    }
    const std::string layout = t.layout() == at::kStrided ? "" : c10::str(", layout ", t.layout());
    return c10::str(t.scalar_type(), " ", t.sizes(), " on ", t.device(), layout);
}

// A tensor whose elements can be read where its strides say.
inline bool is_plain_cpu(const Tensor& t) {
    return t.defined() && t.device().is_cpu() && t.layout() == at::kStrided && !t.is_nested();
}

template <typename Signature> c10::TypedOperatorHandle<Signature> find_operator(const char* name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

inline Tensor empty(Shape sizes, ScalarType type) {
    return at::empty(sizes, at::dtype(type));
}

// The values as another type, contiguous.
inline Tensor converted(const Tensor& t, ScalarType type) {
    return t.to(type).contiguous();
}

inline void copy(const Tensor& from, const Tensor& to) {
    to.copy_(from);
}

// Scale and zero point of a quantized tensor; none where each channel has its own.
inline std::optional<std::pair<double, int64_t>> per_tensor_quantization(const Tensor& x) {
    // Asked directly: each of x.qscheme(), q_scale() and q_zero_point() goes through the dispatcher.
    const auto* const quantizer =
        dynamic_cast<at::PerTensorAffineQuantizer*>(at::get_qtensorimpl(x)->quantizer().get());
    return quantizer ? std::make_optional(std::pair{quantizer->scale(), quantizer->zero_point()}) : std::nullopt;
}

// A tensor of quantized type that `write` has written to.
template <typename Write>
Tensor make_quantized(Shape sizes, ScalarType type, double scale, int64_t zero_point, const Write& write) {
    Tensor y = at::new_qtensor(sizes, at::dtype(type), at::make_per_tensor_affine_quantizer(scale, zero_point, type));
    write(y);
    return y;
}

// Whether both have their elements in the same places of memory without gaps, so that these need no order.
inline bool are_laid_out_alike(const Tensor& a, const Tensor& b) {
    return a.strides() == b.strides() && a.is_non_overlapping_and_dense();
}

// As make_quantized, with the sizes and the layout of `like`, which is without gaps.
template <typename Write>
Tensor make_quantized_like(const Tensor& like, double scale, int64_t zero_point, const Write& write) {
    return make_quantized(like.sizes(), like.scalar_type(), scale, zero_point, [&](const Tensor& y) {
        y.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides());
        write(y);
    });
}

// torch.ops.quantized.add, or add_relu.
inline Tensor quantized_add(const Tensor& a, const Tensor& b, double scale, int64_t zero_point, bool relu) {
    using Signature = Tensor(Tensor, Tensor, double, int64_t);
    static const auto add = find_operator<Signature>("quantized::add");
    static const auto add_relu = find_operator<Signature>("quantized::add_relu");
    return (relu ? add_relu : add).call(a, b, scale, zero_point);
}

// x, or the values that it is the negatives of. PyTorch does so for its own operators where it dispatches them.
inline Tensor resolved(const Tensor& x) {
    return x.is_neg() ? x.resolve_neg() : x;
}

inline void check_writable(const char* op, const Tensor& out) {
    TORCH_CHECK_TYPE(!out.is_neg() && !out.is_conj(), op, "out is a ", out.is_neg() ? "negative" : "conjugate",
                     " view, expected a tensor that holds its values: resolve_neg() and resolve_conj() make one");
}

// PyTorch does so for its own operators where it dispatches them.
inline void about_to_write(const Tensor& out) {
    out.unsafeGetTensorImpl()->bump_version();
}

inline bool in_parallel_region() {
    return at::in_parallel_region();
}

inline int64_t num_threads() {
    return at::get_num_threads();
}

inline void parallel_for(int64_t count, RangeFunction f) {
    at::parallel_for(0, count, /*grain_size=*/1, f);
}

} // namespace acl_qlinear::host
