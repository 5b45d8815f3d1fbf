// The operators: checks, ATen tensors to engine and back, registration.
#include <dlfcn.h>

#include <atomic>
#include <cmath>
#include <functional>

#include <ATen/ATen.h>
#include <ATen/native/quantized/cpu/QuantUtils.h>
#include <ATen/quantized/QTensorImpl.h>
#include <ATen/quantized/Quantizer.h>
#include <torch/library.h>

#include "../engine/linear.h"
#include "../engine/packed_weight.h"
#include "arm_compute/runtime/Scheduler.h"
#include "parallel_for_scheduler.h"

namespace acl_qlinear {
namespace {

ParallelForScheduler& scheduler() {
    static const auto instance = [] {
        auto made = std::make_shared<ParallelForScheduler>();
        // Whatever else this process runs in our ACL uses PyTorch's threads too.
        arm_compute::Scheduler::set(made);
        return made;
    }();
    return *instance;
}

std::string describe(const at::Tensor& t) {
    return c10::str(t.scalar_type(), " ", t.sizes(), " on ", t.device());
}

// The engine reports bad input as std::invalid_argument; PyTorch as ValueError.
template <typename F> auto value_errors(const char* op, const char* what, F&& body) {
    try {
        return body();
    } catch (const std::invalid_argument& e) {
        TORCH_CHECK_VALUE(false, op, what, e.what());
    }
}

// Weights with a zero point, which ACL does not have, cost a pass over activations and
// accumulators: the fallback.
std::atomic<int64_t> fallback_calls{0};
std::atomic<bool>    is_fallback_forbidden{false};

void check_fallback(const char* op, bool has_zero_points) {
    TORCH_CHECK_VALUE(!has_zero_points || !is_fallback_forbidden.load(std::memory_order_relaxed), op,
                      "weight has a zero point that is not 0, which needs the fallback, and forbid_fallback() has "
                      "been called: quantize the weight symmetrically, or call forbid_fallback(False)");
}

// Packing

at::Tensor prepack_values(const char* op, const at::Tensor& weight, const at::Tensor& scale,
                          const std::optional<at::Tensor>& zero_point, const std::optional<at::Tensor>& bias) {
    TORCH_CHECK_VALUE(weight.dim() == 2, op, "weight has shape ", weight.sizes(),
                      ", expected [out_features, in_features]");
    const int64_t N = weight.size(0);
    const auto check_size = [&](const char* name, const at::Tensor& t) {
        TORCH_CHECK_VALUE(t.dim() <= 1 && (t.numel() == 1 || t.numel() == N), op, name, " has shape ", t.sizes(),
                          ", expected [1] or [", N, "], one value per output feature");
    };
    check_size("scale", scale);
    at::Tensor bias_values, zero_points;
    if (zero_point.has_value() && zero_point->defined()) {
        check_size("zero_point", *zero_point);
        zero_points = zero_point->to(at::kInt).expand({scale.numel()}).contiguous();
    }
    if (bias.has_value() && bias->defined()) {
        TORCH_CHECK_TYPE(bias->scalar_type() == at::kFloat && bias->device().is_cpu(), op, "bias is ",
                         describe(*bias), ", expected a float32 CPU tensor");
        TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == N, op, "bias has shape ", bias->sizes(),
                          ", expected [", N, "], one value per output feature");
        bias_values = bias->contiguous();
    }
    const at::Tensor values = weight.contiguous(), scales = scale.to(at::kDouble).contiguous();

    WeightSource source{};
    source.values      = static_cast<const int8_t*>(values.const_data_ptr());
    source.N           = N;
    source.K           = weight.size(1);
    source.scales      = scales.const_data_ptr<double>();
    source.scale_count = scales.numel();
    source.bias        = bias_values.defined() ? bias_values.const_data_ptr<float>() : nullptr;
    source.zero_points = zero_points.defined() && zero_points.count_nonzero().item<int64_t>()
                             ? zero_points.const_data_ptr<int32_t>()
                             : nullptr;
    check_fallback(op, source.zero_points);

    at::Tensor packed;
    value_errors(op, "", [&] {
        pack(source, [&](size_t bytes) {
            // So that out_features is known without looking into it, as fake kernels must.
            packed = at::empty({N, static_cast<int64_t>(bytes) / N}, at::dtype(at::kByte));
            return packed.mutable_data_ptr();
        });
    });
    return packed;
}

at::Tensor prepack(const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    constexpr const char* op = "acl_qlinear::prepack: ";
    TORCH_CHECK_TYPE(weight.scalar_type() == at::kQInt8 && weight.device().is_cpu(), op, "weight is ",
                     describe(weight), ", expected a qint8 CPU tensor");
    if (weight.qscheme() == at::kPerTensorAffine) {
        return prepack_values(op, weight, at::scalar_tensor(weight.q_scale(), at::kDouble),
                              at::scalar_tensor(weight.q_zero_point(), at::kLong), bias);
    }
    TORCH_CHECK_VALUE(weight.qscheme() == at::kPerChannelAffine, op, "weight has scheme ", toString(weight.qscheme()),
                      ", expected per_tensor_affine or per_channel_affine");
    TORCH_CHECK_VALUE(weight.q_per_channel_axis() == 0, op, "weight is quantized along axis ",
                      weight.q_per_channel_axis(), ", expected 0, the output features");
    return prepack_values(op, weight, weight.q_per_channel_scales(), weight.q_per_channel_zero_points(), bias);
}

at::Tensor prepack_int8(const at::Tensor& weight, const at::Tensor& scale, const std::optional<at::Tensor>& zero_point,
                        const std::optional<at::Tensor>& bias) {
    constexpr const char* op = "acl_qlinear::prepack_int8: ";
    TORCH_CHECK_TYPE(weight.scalar_type() == at::kChar && weight.device().is_cpu(), op, "weight is ",
                     describe(weight), ", expected an int8 CPU tensor");
    TORCH_CHECK_TYPE(scale.is_floating_point() && scale.device().is_cpu(), op, "scale is ", describe(scale),
                     ", expected a floating-point CPU tensor");
    TORCH_CHECK_TYPE(!zero_point.has_value() || at::isIntegralType(zero_point->scalar_type(), false), op,
                     "zero_point is ", describe(zero_point.value_or(scale)), ", expected an integer tensor");
    return prepack_values(op, weight, scale, zero_point, bias);
}

PackedWeight view(const char* op, const at::Tensor& packed) {
    TORCH_CHECK_TYPE(packed.scalar_type() == at::kByte && packed.device().is_cpu() && packed.is_contiguous(), op,
                     "packed is ", describe(packed), ", expected the tensor that acl_qlinear::prepack returned");
    const PackedWeight weight = value_errors(op, "packed is not usable: ", [&] {
        return view_packed(packed.const_data_ptr(), packed.nbytes());
    });
    TORCH_CHECK_VALUE(packed.dim() == 2 && packed.size(0) == weight.N, op, "packed has shape ", packed.sizes(),
                      ", expected [", weight.N, ", ", packed.nbytes() / static_cast<size_t>(weight.N),
                      "], as acl_qlinear::prepack returned it");
    return weight;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> unpack_values(const at::Tensor& packed) {
    const PackedWeight weight = view("acl_qlinear::unpack: ", packed);
    const at::Tensor values = at::empty({weight.N, weight.K}, at::kChar);
    unpack(weight, values.mutable_data_ptr<int8_t>());
    const auto copy = [](const auto* data, int64_t count, at::ScalarType type) {
        const at::Tensor t = at::zeros({count}, type);
        if (data && count) {
            std::memcpy(t.mutable_data_ptr(), data, t.nbytes());
        }
        return t;
    };
    return {values, copy(weight.scales, weight.scale_count, at::kDouble),
            copy(weight.zero_points, weight.scale_count, at::kInt),
            copy(weight.bias, weight.was_biased ? weight.N : 0, at::kFloat)};
}

// Calls

struct PostOp {
    Activation activation;
    float      negative_slope;
};

PostOp parse_activation(const char* op, c10::string_view name, double negative_slope) {
    constexpr std::pair<c10::string_view, Activation> all[] = {
        {"none", Activation::none}, {"relu", Activation::relu},           {"leaky_relu", Activation::leaky_relu},
        {"tanh", Activation::tanh}, {"gelu", Activation::gelu},           {"gelu_tanh", Activation::gelu_tanh},
        {"silu", Activation::silu},
    };
    for (const auto& [known, activation] : all) {
        if (name == known) {
            TORCH_CHECK_VALUE(std::isfinite(negative_slope), op, "negative_slope is ", negative_slope,
                              ", expected a finite number");
            return {activation, static_cast<float>(negative_slope)};
        }
    }
    TORCH_CHECK_VALUE(false, op, "activation is \"", name,
                      "\", expected none, relu, leaky_relu, tanh, gelu, gelu_tanh or silu");
}

DType dtype_of(const char* op, const char* name, at::ScalarType type) {
    switch (type) {
    case at::kChar:
    case at::kQInt8: return DType::s8;
    case at::kByte:
    case at::kQUInt8: return DType::u8;
    case at::kFloat: return DType::f32;
    case at::kBFloat16: return DType::bf16;
    default: TORCH_CHECK_TYPE(false, op, name, " is ", type, ", expected int8, uint8, float32 or bfloat16");
    }
}

Quantization checked(const char* op, const char* name, double scale, int64_t zero_point, DType type) {
    TORCH_CHECK_VALUE(std::isfinite(scale) && scale > 0, op, name, "_scale is ", scale,
                      ", expected a finite number above 0");
    const int64_t lowest = type == DType::u8 ? 0 : -128;
    TORCH_CHECK_VALUE(zero_point >= lowest && zero_point <= lowest + 255, op, name, "_zero_point is ", zero_point,
                      ", expected ", lowest, " to ", lowest + 255, " for ", type == DType::u8 ? "uint8" : "int8");
    return {scale, static_cast<int32_t>(zero_point)};
}

void check_columns(const char* op, const at::Tensor& x, const PackedWeight& weight) {
    TORCH_CHECK_TYPE(x.device().is_cpu(), op, "x is ", describe(x), ", expected a CPU tensor");
    TORCH_CHECK_VALUE(x.dim() >= 1 && x.size(-1) == weight.K, op, "x has shape ", x.sizes(), ", expected [..., ",
                      weight.K, "], the packed weight's in_features");
}

c10::SmallVector<int64_t, 5> output_sizes(const at::Tensor& x, const PackedWeight& weight) {
    c10::SmallVector<int64_t, 5> sizes(x.sizes().begin(), x.sizes().end());
    sizes.back() = weight.N;
    return sizes;
}

// x and y are contiguous.
void run(const char* op, const at::Tensor& x, DType x_type, const Quantization& input, const PackedWeight& weight,
         const at::Tensor& y, DType y_type, const Quantization& output, const PostOp& post) {
    if (weight.zero_points) {
        check_fallback(op, true);
        fallback_calls.fetch_add(1, std::memory_order_relaxed);
    }
    LinearCall call{};
    call.M              = x.numel() / weight.K;
    call.x_type         = x_type;
    call.x              = x.const_data_ptr();
    call.input          = input;
    call.y_type         = y_type;
    call.y              = y.mutable_data_ptr();
    call.output         = output;
    call.activation     = post.activation;
    call.negative_slope = post.negative_slope;
    value_errors(op, "", [&] { linear(call, weight, scheduler()); });
}

at::Tensor qlinear(const at::Tensor& x, const at::Tensor& packed, double output_scale, int64_t output_zero_point,
                   std::optional<at::ScalarType> output_dtype, c10::string_view activation, double negative_slope) {
    constexpr const char* op = "acl_qlinear::linear: ";
    const bool is_signed = x.scalar_type() == at::kQInt8;
    TORCH_CHECK_TYPE((is_signed || x.scalar_type() == at::kQUInt8) && x.device().is_cpu(), op, "x is ", describe(x),
                     ", expected a quint8 or qint8 CPU tensor");
    // Asked directly: each of x.qscheme(), q_scale() and q_zero_point() goes through the dispatcher.
    const auto* const quantizer =
        dynamic_cast<at::PerTensorAffineQuantizer*>(at::get_qtensorimpl(x)->quantizer().get());
    TORCH_CHECK_VALUE(quantizer, op, "x has scheme ", toString(x.qscheme()), ", expected per_tensor_affine");
    const PostOp post = parse_activation(op, activation, negative_slope);
    const PackedWeight weight = view(op, packed);
    check_columns(op, x, weight);
    const auto type = output_dtype.value_or(x.scalar_type());
    TORCH_CHECK_TYPE(type == x.scalar_type() || type == at::kFloat || type == at::kBFloat16, op, "output_dtype is ",
                     type, ", expected ", x.scalar_type(), ", as x, float32 or bfloat16");
    const DType x_type = is_signed ? DType::s8 : DType::u8, y_type = dtype_of(op, "output_dtype", type);
    const Quantization input{quantizer->scale(), static_cast<int32_t>(quantizer->zero_point())};
    const auto sizes = output_sizes(x, weight);
    if (type != x.scalar_type()) {
        const at::Tensor y = at::empty(sizes, at::dtype(type));
        run(op, x.contiguous(), x_type, input, weight, y, y_type, {}, post);
        return y;
    }
    const Quantization output = checked(op, "output", output_scale, output_zero_point, y_type);
    const at::Tensor y = at::new_qtensor(
        sizes, x.options(), at::make_per_tensor_affine_quantizer(output_scale, output_zero_point, type));
    run(op, x.contiguous(), x_type, input, weight, y, y_type, output, post);
    return y;
}

void linear_int8_into(const char* op, const at::Tensor& x, double x_scale, int64_t x_zero_point,
                      const at::Tensor& packed, double output_scale, int64_t output_zero_point,
                      c10::string_view activation, double negative_slope,
                      const std::function<at::Tensor(at::IntArrayRef)>& allocate) {
    const DType x_type = dtype_of(op, "x", x.scalar_type());
    const PostOp post = parse_activation(op, activation, negative_slope);
    const PackedWeight weight = view(op, packed);
    check_columns(op, x, weight);
    const Quantization input = checked(op, "x", x_scale, x_zero_point, x_type);
    const at::Tensor y = allocate(output_sizes(x, weight));
    const DType y_type = dtype_of(op, "output_dtype", y.scalar_type());
    const Quantization output = checked(op, "output", output_scale, output_zero_point, y_type);
    run(op, x.contiguous(), x_type, input, weight, y, y_type, output, post);
}

at::Tensor linear_int8(const at::Tensor& x, double x_scale, int64_t x_zero_point, const at::Tensor& packed,
                       double output_scale, int64_t output_zero_point, at::ScalarType output_dtype,
                       c10::string_view activation, double negative_slope) {
    constexpr const char* op = "acl_qlinear::linear_int8: ";
    at::Tensor y;
    dtype_of(op, "output_dtype", output_dtype);
    linear_int8_into(op, x, x_scale, x_zero_point, packed, output_scale, output_zero_point, activation,
                     negative_slope, [&](at::IntArrayRef sizes) { return y = at::empty(sizes, at::dtype(output_dtype)); });
    return y;
}

void linear_int8_out(const at::Tensor& x, double x_scale, int64_t x_zero_point, const at::Tensor& packed,
                     double output_scale, int64_t output_zero_point, c10::string_view activation,
                     double negative_slope, at::Tensor out) {
    constexpr const char* op = "acl_qlinear::linear_int8: ";
    // In place, or nearly: rows that are written may still have to be read.
    const at::Tensor source = x.is_alias_of(out) ? x.clone(at::MemoryFormat::Contiguous) : x;
    at::Tensor y;
    linear_int8_into(op, source, x_scale, x_zero_point, packed, output_scale, output_zero_point, activation,
                     negative_slope, [&](at::IntArrayRef sizes) {
                         TORCH_CHECK_VALUE(out.sizes() == sizes && out.device().is_cpu(), op, "out is ",
                                           describe(out), ", expected shape ", sizes, " on cpu");
                         return y = out.is_contiguous() ? out : at::empty_like(out, at::MemoryFormat::Contiguous);
                     });
    if (!y.is_same(out)) {
        out.copy_(y);
    }
}

at::Tensor linear_dynamic(const at::Tensor& x, const at::Tensor& packed, bool reduce_range,
                          std::optional<at::ScalarType> output_dtype, c10::string_view activation,
                          double negative_slope) {
    constexpr const char* op = "acl_qlinear::linear_dynamic: ";
    TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op, "x is ", describe(x),
                     ", expected a float32 or bfloat16 CPU tensor");
    const auto type = output_dtype.value_or(x.scalar_type());
    TORCH_CHECK_TYPE(type == at::kFloat || type == at::kBFloat16, op, "output_dtype is ", type,
                     ", expected float32 or bfloat16");
    const DType x_type = dtype_of(op, "x", x.scalar_type()), y_type = dtype_of(op, "output_dtype", type);
    const PostOp post = parse_activation(op, activation, negative_slope);
    const PackedWeight weight = view(op, packed);
    check_columns(op, x, weight);

    const at::Tensor rows = x.contiguous();
    const Range range = range_of(x_type, rows.const_data_ptr(), static_cast<size_t>(rows.numel()));
    // PyTorch's own function, so that scale and zero point, and what it says of NaN, are its own.
    const auto chosen = quant_utils::ChooseQuantizationParams(range.lowest, range.highest, 0, 255,
                                                              /*preserve_sparsity=*/false,
                                                              /*force_scale_power_of_two=*/false, reduce_range);
    const at::Tensor y = at::empty(output_sizes(x, weight), at::dtype(type));
    const Quantization input{chosen.scale, signed_zero_point(DType::u8, chosen.zero_point)};
    run(op, rows, x_type, input, weight, y, y_type, {}, post);
    return y;
}

} // namespace

// The library that our calls of ACL go to: another one in the process, in everybody's scope,
// would come before ours.
extern "C" __attribute__((visibility("default"))) const char* acl_qlinear_arm_compute_path() {
    Dl_info library{};
    return dladdr(reinterpret_cast<void*>(&arm_compute::Scheduler::get), &library) ? library.dli_fname : "";
}

// Fake kernels are in acl_qlinear/ops.py.
TORCH_LIBRARY(acl_qlinear, m) {
    m.def("prepack(Tensor weight, Tensor? bias=None) -> Tensor");
    m.def("prepack_int8(Tensor weight, Tensor scale, Tensor? zero_point=None, Tensor? bias=None) -> Tensor");
    m.def("unpack(Tensor packed) -> (Tensor weight, Tensor scale, Tensor zero_point, Tensor bias)");
    m.def("linear(Tensor x, Tensor packed, float output_scale, int output_zero_point, ScalarType? output_dtype=None, "
          "str activation=\"none\", float negative_slope=0.01) -> Tensor");
    m.def("linear_int8(Tensor x, float x_scale, int x_zero_point, Tensor packed, float output_scale=1.0, "
          "int output_zero_point=0, ScalarType output_dtype=float, str activation=\"none\", "
          "float negative_slope=0.01) -> Tensor");
    m.def("linear_int8_out(Tensor x, float x_scale, int x_zero_point, Tensor packed, float output_scale, "
          "int output_zero_point, str activation, float negative_slope, Tensor(a!) out) -> ()");
    m.def("linear_dynamic(Tensor x, Tensor packed, bool reduce_range=False, ScalarType? output_dtype=None, "
          "str activation=\"none\", float negative_slope=0.01) -> Tensor");
    m.def("forbid_fallback(bool forbidden=True) -> ()", [](bool forbidden) { is_fallback_forbidden = forbidden; });
    m.def("fallback_calls() -> int", [] { return fallback_calls.load(); });
}

// CPU as well as QuantizedCPU, so that tensors of the other kind reach the checks.
#define ACL_QLINEAR_IMPLEMENT(m)                 \
    m.impl("prepack", prepack);                  \
    m.impl("prepack_int8", prepack_int8);        \
    m.impl("unpack", unpack_values);             \
    m.impl("linear", qlinear);                   \
    m.impl("linear_int8", linear_int8);          \
    m.impl("linear_int8_out", linear_int8_out);  \
    m.impl("linear_dynamic", linear_dynamic)

TORCH_LIBRARY_IMPL(acl_qlinear, QuantizedCPU, m) {
    ACL_QLINEAR_IMPLEMENT(m);
}

TORCH_LIBRARY_IMPL(acl_qlinear, CPU, m) {
    ACL_QLINEAR_IMPLEMENT(m);
}

} // namespace acl_qlinear
