// SPDX-License-Identifier: MIT
// What profile `full` of ACL can do and profile `qlinear` is not for, each on its own data; writes
// inputs and results into the folder given, for tests/packages/test_full_library.py to check.

#include <arm_compute/core/utils/quantization/AsymmHelpers.h>
#include <arm_compute/runtime/NEON/NEFunctions.h>
#include <arm_compute/runtime/Tensor.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

using namespace arm_compute;

static std::string folder;

static void init(Tensor& tensor, TensorShape shape, DataType type, QuantizationInfo quantization = {}) {
    tensor.allocator()->init(TensorInfo(shape, 1, type, quantization));
    tensor.info()->set_data_layout(DataLayout::NHWC);
}

// Small numbers, the same in every run.
static float next() {
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<int>(state >> 24) - 128) / 64.0f;
}

template <typename T>
static void for_each(Tensor& tensor, T&& function) {
    Window window;
    window.use_tensor_dimensions(tensor.info()->tensor_shape());
    execute_window_loop(window, [&](const Coordinates& id) { function(tensor.ptr_to_element(id)); });
}

static void fill(Tensor& tensor) {
    tensor.allocator()->allocate();
    const DataType type = tensor.info()->data_type();
    for_each(tensor, [&](uint8_t* element) {
        const float value = next();
        switch (type) {
            case DataType::F32: *reinterpret_cast<float*>(element) = value; break;
            case DataType::F16: *reinterpret_cast<half*>(element) = half(value); break;
            case DataType::S32: *reinterpret_cast<int32_t*>(element) = static_cast<int32_t>(value * 64); break;
            default: *element = static_cast<uint8_t>(static_cast<int>(value * 64) + 128); break;
        }
    });
}

static void save(const char* name, Tensor& tensor) {
    FILE* file = std::fopen((folder + "/" + name).c_str(), "wb");
    if (!file) std::exit(2);
    const size_t size = tensor.info()->element_size();
    for_each(tensor, [&](uint8_t* element) { std::fwrite(element, size, 1, file); });
    std::fclose(file);
}

static void gemm(const std::string& name, DataType type) {
    Tensor a, b, out;
    init(a, TensorShape(65U, 17U), type);
    init(b, TensorShape(33U, 65U), type);
    init(out, TensorShape(33U, 17U), type);
    NEGEMM function;
    function.configure(&a, &b, nullptr, &out, 1.0f, 0.0f);
    fill(a);
    fill(b);
    out.allocator()->allocate();
    function.run();
    save((name + ".a").c_str(), a);
    save((name + ".b").c_str(), b);
    save((name + ".out").c_str(), out);
}

// NHWC: shapes are channels, width, height, batches; weights are inputs, width, height, outputs.
static void convolution(const std::string& name, DataType type) {
    const bool quantized = type == DataType::QASYMM8;
    Tensor in, weights, bias, out;
    init(in, TensorShape(5U, 12U, 9U, 2U), type, quantized ? QuantizationInfo(0.02f, 100) : QuantizationInfo());
    init(weights, TensorShape(5U, 3U, 3U, 8U), type, quantized ? QuantizationInfo(0.01f, 120) : QuantizationInfo());
    init(bias, TensorShape(8U), quantized ? DataType::S32 : type);
    init(out, TensorShape(8U, 12U, 9U, 2U), type, quantized ? QuantizationInfo(0.05f, 128) : QuantizationInfo());
    NEConvolutionLayer function;
    function.configure(&in, &weights, &bias, &out, PadStrideInfo(1, 1, 1, 1));
    fill(in);
    fill(weights);
    fill(bias);
    out.allocator()->allocate();
    function.run();
    save((name + ".in").c_str(), in);
    save((name + ".weights").c_str(), weights);
    save((name + ".bias").c_str(), bias);
    save((name + ".out").c_str(), out);
}

static void softmax() {
    Tensor in, out;
    init(in, TensorShape(100U, 7U), DataType::F32);
    init(out, TensorShape(100U, 7U), DataType::F32);
    NESoftmaxLayer function;
    function.configure(&in, &out);
    fill(in);
    out.allocator()->allocate();
    function.run();
    save("softmax.in", in);
    save("softmax.out", out);
}

static void addition() {
    Tensor a, b, out;
    init(a, TensorShape(100U, 7U), DataType::QASYMM8, QuantizationInfo(0.02f, 100));
    init(b, TensorShape(100U, 7U), DataType::QASYMM8, QuantizationInfo(0.01f, 120));
    init(out, TensorShape(100U, 7U), DataType::QASYMM8, QuantizationInfo(0.03f, 110));
    NEArithmeticAddition function;
    function.configure(&a, &b, &out, ConvertPolicy::SATURATE);
    fill(a);
    fill(b);
    out.allocator()->allocate();
    function.run();
    save("addition.a", a);
    save("addition.b", b);
    save("addition.out", out);
}

int main(int, char** arguments) {
    folder = arguments[1];
    gemm("gemm_fp32", DataType::F32);
    gemm("gemm_fp16", DataType::F16);
    convolution("convolution_fp32", DataType::F32);
    convolution("convolution_u8", DataType::QASYMM8);
    softmax();
    addition();
    std::puts("done");
    return 0;
}
