// SPDX-License-Identifier: MIT
#include <arm_neon.h>

#include "kernels/micro_kernel.h"

#ifndef __ARM_FEATURE_MATMUL_INT8
#error "compile this file with -march=armv8.2-a+i8mm"
#endif

namespace acl_qlinear {
namespace {

// vmmlaq_s32 multiplies 2 rows of A with 2 columns of B.
template <int pairs> void neon_mmla(const int8_t* A, const int8_t* B, int32_t* C, int panels, int K) {
    for (int panel = 0; panel < panels; ++panel) {
        int32x4_t c[pairs][6] = {};
        for (int k = 0; k < K; k += 8, B += 96) {
            for (int i = 0; i < 6; ++i) {
                const int8x16_t columns = vld1q_s8(B + 16 * i);
                for (int p = 0; p < pairs; ++p) {
                    c[p][i] = vmmlaq_s32(c[p][i], vld1q_s8(A + 2 * k * pairs + 16 * p), columns);
                }
            }
        }
        for (int p = 0; p < pairs; ++p, C += 24) {
            for (int i = 0; i < 6; ++i) {
                vst1_s32(C + 2 * i, vget_low_s32(c[p][i]));
                vst1_s32(C + 12 + 2 * i, vget_high_s32(c[p][i]));
            }
        }
    }
}

} // namespace

void neon_mmla_2x12(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    neon_mmla<1>(A, B, C, panels, K);
}
void neon_mmla_4x12(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    neon_mmla<2>(A, B, C, panels, K);
}

} // namespace acl_qlinear
