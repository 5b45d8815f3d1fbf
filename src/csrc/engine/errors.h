// SPDX-License-Identifier: MIT
// Errors of numbers that are out of range.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>

namespace acl_qlinear {

inline std::string text(double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.9g", value);
    return digits;
}

[[noreturn]] inline void refuse(const std::string& what, const std::string& parts) {
    throw std::invalid_argument(what + " is not a normal fp32 number: " + parts);
}

} // namespace acl_qlinear
