// SPDX-License-Identifier: MIT
// The sum of two tensors of 8-bit integers, element by element.
#pragma once

#include <cstdint>

#include "engine/parallel.h"
#include "engine/types.h"

namespace acl_qlinear {

// a, b and y have `count` elements, all s8 or all u8. y may be a or b.
struct AddCall {
    int64_t count;
    Input a, b;
    Output y;
    bool relu; // y is not below its zero point.
};

// y = clamp(round((a - zero point) * float(scale(a) / scale(y)) + (b - zero point) * float(scale(b) / scale(y)))
//           + zero point), in fp32: the product of b is rounded, then that of a is added in one operation. Ties go to
// even.
// Throws std::invalid_argument when a quotient of scales is not a normal fp32 number.
void add(const AddCall& call, const Parallel& parallel);

} // namespace acl_qlinear
