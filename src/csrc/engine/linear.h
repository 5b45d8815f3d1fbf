// SPDX-License-Identifier: MIT
// One int8 linear layer call, y = activation(x W^T + b), on packed weights.
#pragma once

#include <cstdint>

#include "engine/packed_weight.h"
#include "engine/parallel.h"
#include "engine/types.h"

namespace acl_qlinear {

// x is [M, K] and y [M, N], of any two types.
// A row of y depends on that row of x alone, bit for bit: not on M, on the
// number of threads or on the CPU.
struct LinearCall {
    int64_t M;
    Input x;
    Output y;
    PostOp post;
    // By row: x and y have floats, and x.quantization is not used.
    PerRow per_row = PerRow::no;
};

// Keeps no state; any number of threads may call it with the same weights at once.
// Throws std::invalid_argument when x is s8 or u8 and the weight has a pre-scale; and when y is s8 or u8 and
// scale(x) * scale(w) / scale(y), or one of its parts that is used alone, is not a normal fp32 number.
void linear(const LinearCall& call, const PackedWeight& weight, const Parallel& parallel);

} // namespace acl_qlinear
