// SPDX-License-Identifier: MIT
// Rounding of integers.
#pragma once

#include <cstdint>

namespace acl_qlinear {

constexpr int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

template <typename T> constexpr T round_up(T value, T step) {
    return (value + step - 1) / step * step;
}

} // namespace acl_qlinear
