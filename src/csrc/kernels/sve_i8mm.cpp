// SPDX-License-Identifier: MIT
#include <arm_sve.h>

#include "kernels/micro_kernel.h"

#ifndef __ARM_FEATURE_SVE_MATMUL_INT8
#error "compile this file with -march=armv8.2-a+sve+i8mm"
#endif

namespace acl_qlinear {
namespace {

// svmmla_s32 multiplies 2 rows of A with 4 columns (of 256-bit vectors) of B, and has products of
// one row and of the other in turns, two by two. Scalable vectors cannot be array elements.
template <int pairs> void sve_mmla(const int8_t* A, const int8_t* B, int32_t* C, int panels, int K) {
    const svbool_t all = svptrue_b8();
    for (int panel = 0; panel < panels; ++panel) {
        svint32_t c0 = svdup_s32(0), c1 = c0, c2 = c0, c3 = c0, c4 = c0, c5 = c0;
        svint32_t d0 = c0, d1 = c0, d2 = c0, d3 = c0, d4 = c0, d5 = c0;
        const int8_t* row = A;
        for (int k = 0; k < K; k += 8) {
            const svint8_t b0 = svld1_s8(all, B), b1 = svld1_vnum_s8(all, B, 1), b2 = svld1_vnum_s8(all, B, 2);
            const svint8_t b3 = svld1_vnum_s8(all, B, 3), b4 = svld1_vnum_s8(all, B, 4);
            const svint8_t b5 = svld1_vnum_s8(all, B, 5);
            const svint8_t a = svld1rq_s8(all, row);
            c0 = svmmla_s32(c0, a, b0);
            c1 = svmmla_s32(c1, a, b1);
            c2 = svmmla_s32(c2, a, b2);
            c3 = svmmla_s32(c3, a, b3);
            c4 = svmmla_s32(c4, a, b4);
            c5 = svmmla_s32(c5, a, b5);
            if constexpr (pairs == 2) {
                const svint8_t a2 = svld1rq_s8(all, row + 16);
                d0 = svmmla_s32(d0, a2, b0);
                d1 = svmmla_s32(d1, a2, b1);
                d2 = svmmla_s32(d2, a2, b2);
                d3 = svmmla_s32(d3, a2, b3);
                d4 = svmmla_s32(d4, a2, b4);
                d5 = svmmla_s32(d5, a2, b5);
            }
            row += 16 * pairs;
            B += 6 * svcntb();
        }
        const auto store = [&](svint32_t v0, svint32_t v1, svint32_t v2, svint32_t v3, svint32_t v4, svint32_t v5) {
            const auto even = [](svint32_t x, svint32_t y) {
                return svreinterpret_s32_s64(svuzp1_s64(svreinterpret_s64_s32(x), svreinterpret_s64_s32(y)));
            };
            const auto odd = [](svint32_t x, svint32_t y) {
                return svreinterpret_s32_s64(svuzp2_s64(svreinterpret_s64_s32(x), svreinterpret_s64_s32(y)));
            };
            svst1_s32(all, C, even(v0, v1));
            svst1_vnum_s32(all, C, 1, even(v2, v3));
            svst1_vnum_s32(all, C, 2, even(v4, v5));
            svst1_vnum_s32(all, C, 3, odd(v0, v1));
            svst1_vnum_s32(all, C, 4, odd(v2, v3));
            svst1_vnum_s32(all, C, 5, odd(v4, v5));
            C += 6 * svcntw();
        };
        store(c0, c1, c2, c3, c4, c5);
        if constexpr (pairs == 2) {
            store(d0, d1, d2, d3, d4, d5);
        }
    }
}

} // namespace

void sve_mmla_2x3vl(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    sve_mmla<1>(A, B, C, panels, K);
}
void sve_mmla_4x3vl(const int8_t* A, const int8_t* B, int32_t* C, int /*tiles*/, int panels, int K) {
    sve_mmla<2>(A, B, C, panels, K);
}

} // namespace acl_qlinear
