// SPDX-License-Identifier: MIT
// Activations in the layout that the kernels read; see PackTile in micro_kernel.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace acl_qlinear {

// Values of a row that are packed at a time.
constexpr int64_t kChunk = 16;

namespace detail {

// The values [k, k + count) of a row, kChunk at most, and zeros.
inline int8x16_t load_chunk(const int8_t* row, int64_t k, int64_t count, int8x16_t flip) {
    if (count >= kChunk) {
        return veorq_s8(vld1q_s8(row + k), flip);
    }
    int8_t last[kChunk] = {};
    std::memcpy(last, row + k, static_cast<size_t>(count));
    return veorq_s8(vld1q_s8(last), flip);
}

// 32-bit or 64-bit values of two vectors in turns.
inline int8x16_t zip1_32(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
inline int8x16_t zip2_32(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
inline int8x16_t zip1_64(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
inline int8x16_t zip2_64(int8x16_t a, int8x16_t b) {
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

// kChunk values of `rows` rows as [kChunk / step][rows][step].
template <int64_t rows, int64_t step> void store_chunk(const int8x16_t (&row)[rows], int8_t* out) {
    static_assert(rows == 1 || step == kChunk || (step == 8 && rows % 2 == 0) ||
                      (step == 4 && (rows == 2 || rows % 4 == 0)),
                  "these heights have no packing yet");
    constexpr int64_t size = rows * step;
    if constexpr (rows == 1 || step == kChunk) {
        for (int64_t i = 0; i < rows; ++i) {
            vst1q_s8(out + i * kChunk, row[i]);
        }
    } else if constexpr (step == 8) {
        for (int64_t i = 0; i < rows; i += 2) {
            vst1q_s8(out + i * step, zip1_64(row[i], row[i + 1]));
            vst1q_s8(out + size + i * step, zip2_64(row[i], row[i + 1]));
        }
    } else if constexpr (rows == 2) {
        vst1q_s8(out, zip1_32(row[0], row[1]));
        vst1q_s8(out + kChunk, zip2_32(row[0], row[1]));
    } else {
        for (int64_t i = 0; i < rows; i += 4) {
            const int8x16_t a = zip1_32(row[i], row[i + 1]), b = zip1_32(row[i + 2], row[i + 3]);
            const int8x16_t c = zip2_32(row[i], row[i + 1]), d = zip2_32(row[i + 2], row[i + 3]);
            vst1q_s8(out + i * step, zip1_64(a, b));
            vst1q_s8(out + size + i * step, zip2_64(a, b));
            vst1q_s8(out + 2 * size + i * step, zip1_64(c, d));
            vst1q_s8(out + 3 * size + i * step, zip2_64(c, d));
        }
    }
}

} // namespace detail

// A PackTile for tiles of `rows` rows.
template <int64_t rows, int64_t step>
void pack_tile(const int8_t* const* row, int64_t k, int64_t count, int8x16_t flip, int8_t* A) {
    for (int64_t i = 0; i < count; i += kChunk) {
        int8x16_t chunk[rows];
        for (int64_t j = 0; j < rows; ++j) {
            chunk[j] = detail::load_chunk(row[j], k + i, count - i, flip);
        }
        detail::store_chunk<rows, step>(chunk, A + i * rows);
    }
}

} // namespace acl_qlinear
