#include "few_rows.h"

#include <arm_neon.h>
#include <arm_sve.h>

#include <cstring>
#include <type_traits>

// Each part is compiled for the CPUs that it is for, whatever the rest of the build is for.

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+sve+i8mm")
namespace acl_qlinear {
namespace {

// svmmla_s32 multiplies 2 rows of A with 4 columns (of 256-bit vectors) of B, and has products of
// one row and of the other in turns, two by two. Scalable vectors cannot be array elements.
template <int pairs>
void sve_mmla(const int8_t* A, const int8_t* B, int32_t* C, int panels, int K) {
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
        const auto store = [&](svint32_t v0, svint32_t v1, svint32_t v2, svint32_t v3, svint32_t v4,
                               svint32_t v5) {
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

void sve_mmla_2(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    sve_mmla<1>(A, B, C, panels, K);
}
void sve_mmla_4(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    sve_mmla<2>(A, B, C, panels, K);
}

} // namespace acl_qlinear
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+sve")
namespace acl_qlinear {
void sve_dot_4(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
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
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+i8mm")
namespace acl_qlinear {
namespace {

// vmmlaq_s32 multiplies 2 rows of A with 2 columns of B.
template <int pairs>
void neon_mmla(const int8_t* A, const int8_t* B, int32_t* C, int panels, int K) {
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

void neon_mmla_2(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    neon_mmla<1>(A, B, C, panels, K);
}
void neon_mmla_4(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    neon_mmla<2>(A, B, C, panels, K);
}

} // namespace acl_qlinear
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
namespace acl_qlinear {
namespace {

// vdotq_laneq_s32 multiplies 4 values of a row of A with those of 4 columns of B. A vector of A
// has `steps` steps of K.
template <int rows> void neon_dot(const int8_t* A, const int8_t* B, int32_t* C, int panels, int K) {
    constexpr int steps = 4 / rows;
    for (int panel = 0; panel < panels; ++panel) {
        // Steps in turns, so that fewer instructions wait for one another.
        int32x4_t c[2][rows][3] = {};
        const auto multiply = [&](int8x16_t a, auto step) {
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
        using std::integral_constant;
        int k = 0;
        for (; k + 4 * steps <= K; k += 4 * steps) {
            const int8x16_t a = vld1q_s8(A + k * rows);
            multiply(a, integral_constant<int, 0>());
            if constexpr (steps >= 2) {
                multiply(a, integral_constant<int, 1>());
            }
            if constexpr (steps == 4) {
                multiply(a, integral_constant<int, 2>());
                multiply(a, integral_constant<int, 3>());
            }
        }
        for (; k < K; k += 4) {
            int8x16_t a = {};
            std::memcpy(&a, A + k * rows, 4 * rows);
            multiply(a, integral_constant<int, 0>());
        }
        for (int row = 0; row < rows; ++row, C += 12) {
            for (int i = 0; i < 3; ++i) {
                vst1q_s32(C + 4 * i, vaddq_s32(c[0][row][i], c[1][row][i]));
            }
        }
    }
}

} // namespace

void neon_dot_1(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    neon_dot<1>(A, B, C, panels, K);
}
void neon_dot_2(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    neon_dot<2>(A, B, C, panels, K);
}
void neon_dot_4(const int8_t* A, const int8_t* B, int32_t* C, int, int panels, int K) {
    neon_dot<4>(A, B, C, panels, K);
}

} // namespace acl_qlinear
#pragma GCC pop_options
