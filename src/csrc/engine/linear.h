// One int8 linear layer call, y = activation(x W^T + b), on packed weights.
#pragma once

#include <cstdint>

#include "arm_compute/runtime/IScheduler.h"
#include "activation.h"
#include "packed_weight.h"
#include "quantize.h"

namespace acl_qlinear {

// x is [M, K] and y [M, N], row-major, of any two types.
// A row of y depends on that row of x alone, bit for bit: not on M, on the
// number of threads or on the CPU.
struct LinearCall {
    int64_t      M;
    DType        x_type;
    const void*  x;
    Quantization input;  // of x; where x is fp32 or bf16, of the s8 values that it is quantized to
    DType        y_type;
    void*        y;
    Quantization output; // of y; where y is fp32 or bf16, not used
    Activation   activation;
    float        negative_slope; // of leaky_relu
};

// Runs on as many threads as `scheduler` has. Keeps no state; any number of
// threads may call it with the same weights at once.
// Throws std::invalid_argument when y is s8 or u8 and scale(x) * scale(w) / scale(y), or one of
// its parts that is used alone, is not a normal fp32 number.
void linear(const LinearCall& call, const PackedWeight& weight, arm_compute::IScheduler& scheduler);

} // namespace acl_qlinear
