#include "linear.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "gemm.h"
#include "requantize.h"
#include "scratch.h"

namespace acl_qlinear {
namespace {

constexpr int64_t kStep = 16;

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// u8 activations become s8 by flipping the top bit: x - 128, zero point - 128.
constexpr int32_t zero_point_shift(int8_t) { return 0; }
constexpr int32_t zero_point_shift(uint8_t) { return 128; }

const int8_t* as_signed(const int8_t* x, int64_t) {
    return x;
}
const int8_t* as_signed(const uint8_t* x, int64_t count) {
    auto* const flipped = scratch<Scratch::activations, int8_t>(static_cast<size_t>(count));
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        vst1q_u8(reinterpret_cast<uint8_t*>(flipped + i), veorq_u8(vld1q_u8(x + i), vdupq_n_u8(0x80)));
    }
    for (; i < count; ++i) {
        flipped[i] = static_cast<int8_t>(x[i] ^ 0x80);
    }
    return flipped;
}

// What the layer's quantization parameters make of each output column.
struct ColumnTerms {
    const int32_t* offset;     // added to the accumulators: -zero point * column sum; nullptr for 0
    const float*   multiplier; // scale(x) * scale(w) / scale(y)
    const float*   bias;       // bias / scale(y); nullptr for none
};

float multiplier_of(double input, double weight, double output) {
    const auto value = static_cast<float>(input * weight / output);
    if (!std::isnormal(value)) {
        throw std::invalid_argument("input scale * weight scale / output scale = " + std::to_string(input) + " * " +
                                    std::to_string(weight) + " / " + std::to_string(output) +
                                    " is not a normal fp32 number");
    }
    return value;
}

template <typename T> ColumnTerms column_terms(const LinearCall<T>& call, const PackedWeight& w) {
    const int64_t columns = ceil_div(w.N, kStep) * kStep;
    auto* const offset     = scratch<Scratch::column_terms, int32_t>(static_cast<size_t>(3 * columns));
    auto* const multiplier = reinterpret_cast<float*>(offset + columns);
    auto* const bias       = multiplier + columns;

    const int32_t zero_point = call.input.zero_point - zero_point_shift(T{});
    for (int64_t n = 0; zero_point != 0 && n < columns; ++n) {
        offset[n] = -zero_point * w.column_sums[n];
    }
    if (w.scale_count == 1) {
        std::fill_n(multiplier, columns, multiplier_of(call.input.scale, w.scales[0], call.output.scale));
    } else {
        for (int64_t n = 0; n < w.N; ++n) {
            multiplier[n] = multiplier_of(call.input.scale, w.scales[n], call.output.scale);
        }
    }
    const auto per_unit = static_cast<float>(1 / call.output.scale);
    for (int64_t n = 0; w.has_bias && n < columns; ++n) {
        bias[n] = w.bias[n] * per_unit;
    }
    return {zero_point != 0 ? offset : nullptr, multiplier, w.has_bias ? bias : nullptr};
}

// How the [M, N] outputs are cut up; tiles are numbered row by row.
struct Tiling {
    int64_t rows, columns; // of one tile; the last ones may be smaller
    int64_t row_tiles, column_tiles;

    Tiling(int64_t M, const PackedWeight& w, int64_t threads) {
        const GemmKernel& narrow = w.kernels.narrow;
        // ACL's tiles are 6 or 8 rows high: a partial one costs as much as a whole one.
        const int64_t height = narrow.is_hybrid && !w.kernels.wide.panel_bytes ? 6 : 8;
        const int64_t step   = narrow.is_hybrid ? narrow.column_step : w.N;
        const int64_t steps  = ceil_div(w.N, step);

        row_tiles = ceil_div(M, kMaxRows);
        if (row_tiles > 1) {
            row_tiles = ceil_div(row_tiles, threads) * threads;
        }
        row_tiles = std::max(row_tiles, std::min(ceil_div(M, height), ceil_div(threads, steps)));
        rows      = ceil_div(ceil_div(M, row_tiles), height) * height;
        row_tiles = ceil_div(M, rows);

        column_tiles = std::min(steps, ceil_div(threads, row_tiles));
        columns      = ceil_div(steps, column_tiles) * step;
        column_tiles = ceil_div(w.N, columns);
    }
};

template <typename T>
void run_tile(const LinearCall<T>& call, const PackedWeight& w, const ColumnTerms& terms, const Tiling& tiling,
              int64_t tile) {
    const int64_t row    = tile / tiling.column_tiles * tiling.rows;
    const int64_t column = tile % tiling.column_tiles * tiling.columns;
    const int64_t rows   = std::min(tiling.rows, call.M - row);
    const int64_t width  = std::min(tiling.columns, w.N - column);

    auto* const acc = scratch<Scratch::accumulators, int32_t>(static_cast<size_t>(rows * width + kStep));
    const int64_t bit = rows - 1;
    // Only hybrid kernels, the narrow ones, can run a part of the columns.
    const bool is_wide = width == w.N && (w.kernels.wide_for_rows[bit / 64] >> (bit % 64) & 1);

    GemmTile gemm{};
    gemm.N            = w.N;
    gemm.K            = w.K;
    gemm.rows         = rows;
    gemm.column_begin = column;
    gemm.column_end   = column + width;
    gemm.activations  = as_signed(call.x + row * w.K, rows * w.K);
    gemm.panels       = is_wide ? w.wide_panels : w.narrow_panels;
    gemm.out          = acc;
    run_gemm(is_wide ? w.kernels.wide : w.kernels.narrow, gemm);

    Requantization q{};
    q.offset     = terms.offset ? terms.offset + column : nullptr;
    q.multiplier = terms.multiplier + column;
    q.bias       = terms.bias ? terms.bias + column : nullptr;
    q.zero_point = call.output.zero_point;
    q.lowest     = call.relu ? call.output.zero_point : std::numeric_limits<T>::min();
    q.highest    = std::numeric_limits<T>::max();
    requantize(acc, rows, width, q, call.y + row * w.N + column, w.N);
}

} // namespace

template <typename T>
void linear(const LinearCall<T>& call, const PackedWeight& weight, arm_compute::IScheduler& scheduler) {
    if (call.M == 0) {
        return;
    }
    const ColumnTerms terms = column_terms(call, weight);
    const Tiling tiling(call.M, weight, scheduler.num_threads());
    const int64_t tiles = tiling.row_tiles * tiling.column_tiles;
    if (tiles == 1 || scheduler.num_threads() == 1) {
        for (int64_t tile = 0; tile < tiles; ++tile) {
            run_tile(call, weight, terms, tiling, tile);
        }
        return;
    }
    std::vector<arm_compute::IScheduler::Workload> workloads;
    workloads.reserve(static_cast<size_t>(tiles));
    for (int64_t tile = 0; tile < tiles; ++tile) {
        workloads.emplace_back([&call, &weight, &terms, &tiling, tile](const arm_compute::ThreadInfo&) {
            run_tile(call, weight, terms, tiling, tile);
        });
    }
    scheduler.run_tagged_workloads(workloads, "acl_qlinear");
}

template void linear(const LinearCall<int8_t>&, const PackedWeight&, arm_compute::IScheduler&);
template void linear(const LinearCall<uint8_t>&, const PackedWeight&, arm_compute::IScheduler&);

} // namespace acl_qlinear
