// SPDX-License-Identifier: MIT
#include <arm_neon.h>

#include <cstring>

#include "kernels/micro_kernel.h"

#ifndef __ARM_FEATURE_DOTPROD
#error "compile this file with -march=armv8.2-a+dotprod"
#endif

namespace acl_qlinear {
namespace {

// A number as a type, since lanes are constants.
template <int> struct Step {};

// vdotq_laneq_s32 multiplies 4 values of a row of A with those of 4 columns of B. A vector of A
// has `steps` steps of K.
template <int rows> void neon_dot(const int8_t* A, const int8_t* B, int32_t* C, int panels, int K) {
    constexpr int steps = 4 / rows;
    for (int panel = 0; panel < panels; ++panel) {
        // Steps in turns, so that fewer instructions wait for one another.
        int32x4_t c[2][rows][3] = {};
        const auto multiply = [&]<int step>(int8x16_t a, Step<step>) {
            for (int i = 0; i < 3; ++i) {
                const int8x16_t columns = vld1q_s8(B + 16 * i);
                auto& sums = c[step % 2];
                sums[0][i] = vdotq_laneq_s32(sums[0][i], columns, a, step * rows);
                if constexpr (rows >= 2) {
                    sums[1][i] = vdotq_laneq_s32(sums[1][i], columns, a, step * rows + 1);
                }
                if constexpr (rows == 4) {
                    sums[2][i] = vdotq_laneq_s32(sums[2][i], columns, a, 2);
                    sums[3][i] = vdotq_laneq_s32(sums[3][i], columns, a, 3);
                }
            }
            B += 48;
        };
        int k = 0;
        for (; k + 4 * steps <= K; k += 4 * steps) {
            const int8x16_t a = vld1q_s8(A + k * rows);
            multiply(a, Step<0>());
            if constexpr (steps >= 2) {
                multiply(a, Step<1>());
            }
            if constexpr (steps == 4) {
                multiply(a, Step<2>());
                multiply(a, Step<3>());
            }
        }
        for (; k < K; k += 4) {
            int8x16_t a = {};
            std::memcpy(&a, A + k * rows, 4 * rows);
            multiply(a, Step<0>());
        }
        for (int row = 0; row < rows; ++row, C += 12) {
            for (int i = 0; i < 3; ++i) {
                vst1q_s32(C + 4 * i, vaddq_s32(c[0][row][i], c[1][row][i]));
            }
        }
    }
}

} // namespace

void neon_dot_1x12(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    neon_dot<1>(A, B, C, panels, K);
}
void neon_dot_2x12(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    neon_dot<2>(A, B, C, panels, K);
}
void neon_dot_4x12(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    neon_dot<4>(A, B, C, panels, K);
}

} // namespace acl_qlinear
