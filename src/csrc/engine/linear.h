// One int8 linear layer call: y = requantize(x W^T + b), on packed weights.
#pragma once

#include <cstdint>

#include "arm_compute/runtime/IScheduler.h"
#include "packed_weight.h"

namespace acl_qlinear {

struct Quantization {
    double  scale;
    int32_t zero_point;
};

// T is int8_t or uint8_t, for x and y alike. x is [M, K] and y [M, N], row-major.
// A row of y depends on that row of x alone, bit for bit: not on M, on the
// number of threads or on the CPU.
template <typename T> struct LinearCall {
    int64_t      M;
    const T*     x;
    T*           y;
    Quantization input;
    Quantization output;
    bool         relu;
};

// Runs on as many threads as `scheduler` has. Keeps no state; any number of
// threads may call it with the same weights at once.
// Throws std::invalid_argument when scale(x) * scale(w) / scale(y) is not a
// normal fp32 number.
template <typename T>
void linear(const LinearCall<T>& call, const PackedWeight& weight, arm_compute::IScheduler& scheduler);

} // namespace acl_qlinear
