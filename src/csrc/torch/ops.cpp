// The operators: checks, ATen tensors to engine and back, registration.
#include <dlfcn.h>

#include <ATen/ATen.h>
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

bool is_quantized_8bit(const at::Tensor& t) {
    return t.scalar_type() == at::kQInt8 || t.scalar_type() == at::kQUInt8;
}

std::string describe(const at::Tensor& t) {
    return c10::str(t.scalar_type(), " ", t.sizes(), " on ", t.device());
}

// The engine reports bad input as std::invalid_argument; PyTorch as ValueError.
template <typename F> auto value_errors(const char* what, F&& body) {
    try {
        return body();
    } catch (const std::invalid_argument& e) {
        TORCH_CHECK_VALUE(false, what, e.what());
    }
}

at::Tensor prepack(const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
    TORCH_CHECK_TYPE(weight.scalar_type() == at::kQInt8 && weight.device().is_cpu(),
                     "acl_qlinear::prepack: weight is ", describe(weight), ", expected a qint8 CPU tensor");
    TORCH_CHECK_VALUE(weight.dim() == 2, "acl_qlinear::prepack: weight has shape ", weight.sizes(),
                      ", expected [out_features, in_features]");
    TORCH_CHECK_VALUE(weight.qscheme() == at::kPerTensorAffine, "acl_qlinear::prepack: weight has scheme ",
                      toString(weight.qscheme()), ", expected per_tensor_affine (per channel is not supported yet)");
    TORCH_CHECK_VALUE(weight.q_zero_point() == 0, "acl_qlinear::prepack: weight has zero point ",
                      weight.q_zero_point(), ", expected 0: quantize it symmetrically");
    at::Tensor bias_values;
    if (bias.has_value() && bias->defined()) {
        TORCH_CHECK_TYPE(bias->scalar_type() == at::kFloat && bias->device().is_cpu(),
                         "acl_qlinear::prepack: bias is ", describe(*bias), ", expected a float32 CPU tensor");
        TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == weight.size(0), "acl_qlinear::prepack: bias has shape ",
                          bias->sizes(), ", expected [", weight.size(0), "], one value per output feature");
        bias_values = bias->contiguous();
    }
    const at::Tensor values = weight.contiguous();
    const double scale      = weight.q_scale();

    WeightSource source{};
    source.values      = reinterpret_cast<const int8_t*>(values.const_data_ptr<c10::qint8>());
    source.N           = weight.size(0);
    source.K           = weight.size(1);
    source.scales      = &scale;
    source.scale_count = 1;
    source.bias        = bias_values.defined() ? bias_values.const_data_ptr<float>() : nullptr;

    at::Tensor packed;
    value_errors("acl_qlinear::prepack: ", [&] {
        pack(source, [&](size_t bytes) {
            packed = at::empty({static_cast<int64_t>(bytes)}, at::dtype(at::kByte));
            return packed.mutable_data_ptr();
        });
    });
    return packed;
}

template <typename T>
void run(const at::Tensor& x, const PackedWeight& weight, const at::Tensor& y, const Quantization& input,
         const Quantization& output, bool relu) {
    LinearCall<T> call{};
    call.M      = x.size(0);
    call.x      = static_cast<const T*>(x.const_data_ptr());
    call.y      = static_cast<T*>(y.mutable_data_ptr());
    call.input  = input;
    call.output = output;
    call.relu   = relu;
    linear(call, weight, scheduler());
}

template <bool relu>
at::Tensor qlinear(const at::Tensor& x, const at::Tensor& packed, double output_scale, int64_t output_zero_point) {
    constexpr const char* op = relu ? "acl_qlinear::linear_relu: " : "acl_qlinear::linear: ";
    TORCH_CHECK_TYPE(is_quantized_8bit(x) && x.device().is_cpu(), op, "x is ", describe(x),
                     ", expected a quint8 or qint8 CPU tensor");
    // Asked directly: each of x.qscheme(), q_scale() and q_zero_point() goes through the dispatcher.
    const auto* const quantizer =
        dynamic_cast<at::PerTensorAffineQuantizer*>(at::get_qtensorimpl(x)->quantizer().get());
    TORCH_CHECK_VALUE(quantizer, op, "x has scheme ", toString(x.qscheme()), ", expected per_tensor_affine");
    TORCH_CHECK_VALUE(x.dim() == 2, op, "x has shape ", x.sizes(), ", expected [M, in_features]");
    TORCH_CHECK_TYPE(packed.scalar_type() == at::kByte && packed.device().is_cpu() && packed.is_contiguous(), op,
                     "packed is ", describe(packed), ", expected the tensor that acl_qlinear::prepack returned");
    const PackedWeight weight = value_errors(relu ? "acl_qlinear::linear_relu: packed is not usable: "
                                                  : "acl_qlinear::linear: packed is not usable: ",
                                             [&] { return view_packed(packed.const_data_ptr(), packed.nbytes()); });
    TORCH_CHECK_VALUE(x.size(1) == weight.K, op, "x has shape ", x.sizes(), ", expected [M, ", weight.K,
                      "], the packed weight's in_features");
    const bool is_signed = x.scalar_type() == at::kQInt8;
    const int64_t lowest = is_signed ? -128 : 0, highest = is_signed ? 127 : 255;
    TORCH_CHECK_VALUE(output_zero_point >= lowest && output_zero_point <= highest, op, "output_zero_point is ",
                      output_zero_point, ", expected ", lowest, " to ", highest, " for ", x.scalar_type());
    TORCH_CHECK_VALUE(std::isfinite(output_scale) && output_scale > 0, op, "output_scale is ", output_scale,
                      ", expected a finite number above 0");

    const at::Tensor rows = x.contiguous();
    const at::Tensor y    = at::new_qtensor(
        {x.size(0), weight.N}, x.options(),
        at::make_per_tensor_affine_quantizer(output_scale, output_zero_point, x.scalar_type()));
    const Quantization input{quantizer->scale(), static_cast<int32_t>(quantizer->zero_point())};
    const Quantization output{output_scale, static_cast<int32_t>(output_zero_point)};
    value_errors(op, [&] {
        is_signed ? run<int8_t>(rows, weight, y, input, output, relu)
                  : run<uint8_t>(rows, weight, y, input, output, relu);
    });
    return y;
}

} // namespace

// The library that our calls of ACL go to: another one in the process, in everybody's scope,
// would come before ours.
extern "C" __attribute__((visibility("default"))) const char* acl_qlinear_arm_compute_path() {
    Dl_info library{};
    return dladdr(reinterpret_cast<void*>(&arm_compute::Scheduler::get), &library) ? library.dli_fname : "";
}

TORCH_LIBRARY(acl_qlinear, m) {
    m.def("prepack(Tensor weight, Tensor? bias=None) -> Tensor");
    m.def("linear(Tensor x, Tensor packed, float output_scale, int output_zero_point) -> Tensor");
    m.def("linear_relu(Tensor x, Tensor packed, float output_scale, int output_zero_point) -> Tensor");
}

// CPU as well as QuantizedCPU, so that plain tensors reach the checks.
TORCH_LIBRARY_IMPL(acl_qlinear, QuantizedCPU, m) {
    m.impl("prepack", prepack);
    m.impl("linear", qlinear<false>);
    m.impl("linear_relu", qlinear<true>);
}

TORCH_LIBRARY_IMPL(acl_qlinear, CPU, m) {
    m.impl("prepack", prepack);
    m.impl("linear", qlinear<false>);
    m.impl("linear_relu", qlinear<true>);
}

} // namespace acl_qlinear
