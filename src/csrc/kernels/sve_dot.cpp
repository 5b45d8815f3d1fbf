// SPDX-License-Identifier: MIT
#include <arm_sve.h>

#include "kernels/micro_kernel.h"

#ifndef __ARM_FEATURE_SVE
#error "compile this file with -march=armv8.2-a+sve"
#endif

namespace acl_qlinear {

uint32_t sve_vector_bytes() {
    return static_cast<uint32_t>(svcntb());
}

// svdot_lane_s32 multiplies 4 values of a row of A, the lane, with those of each column of B.
void sve_dot_4x3vl(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    const svbool_t all = svptrue_b8();
    for (int panel = 0; panel < panels; ++panel) {
        svint32_t r0 = svdup_s32(0), r1 = r0, r2 = r0, r3 = r0, s0 = r0, s1 = r0, s2 = r0, s3 = r0;
        svint32_t t0 = r0, t1 = r0, t2 = r0, t3 = r0;
        const int8_t* row = A;
        for (int k = 0; k < K; k += 4) {
            const svint8_t a = svld1rq_s8(all, row);
            const svint8_t b0 = svld1_s8(all, B), b1 = svld1_vnum_s8(all, B, 1), b2 = svld1_vnum_s8(all, B, 2);
            r0 = svdot_lane_s32(r0, b0, a, 0);
            s0 = svdot_lane_s32(s0, b1, a, 0);
            t0 = svdot_lane_s32(t0, b2, a, 0);
            r1 = svdot_lane_s32(r1, b0, a, 1);
            s1 = svdot_lane_s32(s1, b1, a, 1);
            t1 = svdot_lane_s32(t1, b2, a, 1);
            r2 = svdot_lane_s32(r2, b0, a, 2);
            s2 = svdot_lane_s32(s2, b1, a, 2);
            t2 = svdot_lane_s32(t2, b2, a, 2);
            r3 = svdot_lane_s32(r3, b0, a, 3);
            s3 = svdot_lane_s32(s3, b1, a, 3);
            t3 = svdot_lane_s32(t3, b2, a, 3);
            row += 16;
            B += 3 * svcntb();
        }
        const auto store = [&](svint32_t v0, svint32_t v1, svint32_t v2) {
            svst1_s32(all, C, v0);
            svst1_vnum_s32(all, C, 1, v1);
            svst1_vnum_s32(all, C, 2, v2);
            C += 3 * svcntw();
        };
        store(r0, s0, t0);
        store(r1, s1, t1);
        store(r2, s2, t2);
        store(r3, s3, t3);
    }
}

} // namespace acl_qlinear
