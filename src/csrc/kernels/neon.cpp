// SPDX-License-Identifier: MIT
#include <arm_neon.h>

#include "kernels/micro_kernel.h"

namespace acl_qlinear {

// vmull_s8 multiplies 8 values of a row of A with those of a column of B. Each product is added in
// 32 bits: 16 hold one of -128 with -128, but not two of them.
void neon_mull_4x4(const int8_t* A, const int8_t* B, int32_t* C, int tiles, int panels, int K) {
    for (int tile = 0; tile < tiles; ++tile, A += 4 * K) {
        const int8_t* column = B;
        for (int panel = 0; panel < panels; ++panel, C += 16) {
            int32x4_t sums[4][4] = {};
            for (int k = 0; k < K; k += 16, column += 64) {
                int8x16_t b[4];
                for (int j = 0; j < 4; ++j) {
                    b[j] = vld1q_s8(column + 16 * j);
                }
                for (int i = 0; i < 4; ++i) {
                    const int8x16_t a = vld1q_s8(A + 4 * k + 16 * i);
                    for (int j = 0; j < 4; ++j) {
                        sums[i][j] = vpadalq_s16(sums[i][j], vmull_s8(vget_low_s8(a), vget_low_s8(b[j])));
                        sums[i][j] = vpadalq_s16(sums[i][j], vmull_high_s8(a, b[j]));
                    }
                }
            }
            for (int i = 0; i < 4; ++i) {
                const int32x4_t low = vpaddq_s32(sums[i][0], sums[i][1]), high = vpaddq_s32(sums[i][2], sums[i][3]);
                vst1q_s32(C + 4 * i, vpaddq_s32(low, high));
            }
        }
    }
}

} // namespace acl_qlinear
