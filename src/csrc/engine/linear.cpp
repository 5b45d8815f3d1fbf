#include "linear.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "epilogue.h"
#include "gemm.h"
#include "integers.h"
#include "scratch.h"

namespace acl_qlinear {
namespace {

bool is_8bit(DType type) {
    return type == DType::s8 || type == DType::u8;
}

// What the layer's quantization parameters make of each output column.
struct ColumnTerms {
    const int32_t* offset;     // added to the accumulators: -zero point * column sum; nullptr for 0
    const float*   multiplier; // scale(x) * scale(w) / unit
    const float*   bias;       // bias / unit; nullptr for none
};

// The units that the activation function sees: those of y, which saves a rounding, where the
// function allows it.
double unit_of(const LinearCall& call) {
    return is_8bit(call.y_type) && is_homogeneous(call.activation) ? call.output.scale : 1.0;
}

float normal_fp32(double value, const char* what, const LinearCall& call, double weight_scale) {
    if (!std::isnormal(static_cast<float>(value))) {
        const auto text = [](double v) {
            char digits[32];
            std::snprintf(digits, sizeof digits, "%.9g", v);
            return std::string(digits);
        };
        throw std::invalid_argument(std::string(what) + " is not a normal fp32 number: the input scale is " +
                                    text(call.input.scale) + ", the weight scale " + text(weight_scale) +
                                    ", the output scale " + text(call.output.scale));
    }
    return static_cast<float>(value);
}

// The multipliers of `columns` columns, a multiple of 4, from the weight's scales.
void fill_multipliers(const LinearCall& call, const PackedWeight& w, double unit, int64_t columns, float* multiplier) {
    // Outputs that are not integers have a place for infinity and zero.
    const auto check = [&](double weight_scale) {
        const double value = call.input.scale * weight_scale / unit;
        return is_8bit(call.y_type) ? normal_fp32(value, "input scale * weight scale / output scale", call, weight_scale)
                                    : static_cast<float>(value);
    };
    if (w.scale_count == 1) {
        std::fill_n(multiplier, columns, check(w.scales[0]));
        return;
    }
    // The smallest and the largest scale stand for all.
    float64x2_t low = vld1q_f64(w.scales), high = low;
    const float64x2_t input = vdupq_n_f64(call.input.scale), units = vdupq_n_f64(unit);
    for (int64_t n = 0; n < columns; n += 4) {
        const float64x2_t a = vld1q_f64(w.scales + n), b = vld1q_f64(w.scales + n + 2);
        low  = vminq_f64(low, vminq_f64(a, b));
        high = vmaxq_f64(high, vmaxq_f64(a, b));
        const float32x2_t first = vcvt_f32_f64(vdivq_f64(vmulq_f64(a, input), units));
        vst1q_f32(multiplier + n, vcvt_high_f32_f64(first, vdivq_f64(vmulq_f64(b, input), units)));
    }
    check(vminvq_f64(low));
    check(vmaxvq_f64(high));
}

ColumnTerms column_terms(const LinearCall& call, const PackedWeight& w) {
    const int64_t columns = round_up(w.N, kEpilogueColumns);
    auto* const offset     = scratch<Scratch::column_terms, int32_t>(static_cast<size_t>(3 * columns));
    auto* const multiplier = reinterpret_cast<float*>(offset + columns);
    auto* const bias       = multiplier + columns;

    const int32_t zero_point = signed_zero_point(call.x_type, call.input.zero_point);
    for (int64_t n = 0; zero_point != 0 && n < columns; ++n) {
        offset[n] = -zero_point * w.column_sums[n];
    }
    const double unit = unit_of(call);
    fill_multipliers(call, w, unit, columns, multiplier);
    const auto per_unit = static_cast<float>(1 / unit);
    for (int64_t n = 0; w.has_bias && n < columns; ++n) {
        bias[n] = w.bias[n] * per_unit;
    }
    return {zero_point != 0 ? offset : nullptr, multiplier, w.has_bias ? bias : nullptr};
}

Epilogue epilogue_of(const LinearCall& call, const ColumnTerms& terms) {
    Epilogue e{};
    e.offset         = terms.offset;
    e.multiplier     = terms.multiplier;
    e.bias           = terms.bias;
    e.activation     = call.activation;
    e.negative_slope = call.negative_slope;
    e.type           = call.y_type;
    e.per_unit       = 1;
    if (is_8bit(call.y_type)) {
        if (!is_homogeneous(call.activation)) {
            e.per_unit = normal_fp32(1 / call.output.scale, "1 / output scale", call, 0);
        }
        e.zero_point = call.output.zero_point;
    }
    return e;
}

// The same for the columns from `column` on.
Epilogue from_column(Epilogue e, int64_t column) {
    e.offset = e.offset ? e.offset + column : nullptr;
    e.multiplier += column;
    e.bias = e.bias ? e.bias + column : nullptr;
    return e;
}

// How the [M, N] outputs are cut up; tiles are numbered row by row.
struct Tiling {
    int64_t rows, columns; // of one tile; the last ones may be smaller
    int64_t row_tiles, column_tiles;

    Tiling(int64_t M, const PackedWeight& w, int64_t threads) {
        const int64_t fewest = ceil_div(M, max_rows(w.K));
        *this = Tiling(M, w, fewest, 1);
        // What the busiest thread does, in products of a row with a column; packing a row costs
        // as much as 32 of them.
        const auto cost = [&](const Tiling& t) {
            return ceil_div(t.row_tiles * t.column_tiles, threads) * t.rows * (t.columns + 32);
        };
        for (int64_t i = 0; threads > 1 && i < threads; ++i) {
            const Tiling t(M, w, fewest + i, ceil_div(threads, fewest + i));
            if (cost(t) < cost(*this)) {
                *this = t;
            }
        }
    }

private:
    Tiling(int64_t M, const PackedWeight& w, int64_t wanted_row_tiles, int64_t wanted_column_tiles) {
        // A partial tile of a kernel's costs as much as a whole one.
        const int64_t step = w.family->panel_columns(), steps = ceil_div(w.N, step);
        rows         = round_up(ceil_div(M, wanted_row_tiles), kMaxTileRows);
        row_tiles    = ceil_div(M, rows);
        columns      = ceil_div(steps, std::min(steps, wanted_column_tiles)) * step;
        column_tiles = ceil_div(w.N, columns);
    }
};

// Products of the rows of x, [rows, K] of type s8 or u8, with the columns from `begin`, where a
// panel does, to `end`; calls use(Products, column, columns) for some of the columns at a time.
template <typename Use>
void multiply(const PackedWeight& w, DType type, const void* x, int64_t rows, int64_t begin, int64_t end,
              const Use& use) {
    const PackedRows packed(*w.family, type, x, rows, w.K);
    const int64_t panel = w.family->panel_columns(), most = packed.panels_at_once();
    for (int64_t column = begin, panels; column < end; column += panels * panel) {
        panels = std::min(most, ceil_div(end - column, panel));
        use(packed.multiply(w.values + column * round_up(w.K, w.family->step), panels), column,
            std::min(panels * panel, end - column));
    }
}

// For each of `rows` rows of x, [rows, K] of type s8 or u8, the sum of its values as s8.
std::vector<int32_t> row_sums(DType type, const void* x, int64_t rows, int64_t K) {
    const int8_t* value = to_signed(type, x, static_cast<size_t>(rows * K), {});
    std::vector<int32_t> sums;
    for (int64_t m = 0; m < rows; ++m, value += K) {
        sums.push_back(std::accumulate(value, value + K, int32_t{0}));
    }
    return sums;
}

// Weights with zero points: what the products with the unshifted weights have too much,
// sum over k of x[m, k] * zero point[n]. zero_points: of the products' columns.
void subtract_zero_points(const Products& p, int64_t columns, const std::vector<int32_t>& sums,
                          const int32_t* zero_points) {
    for (int64_t n = 0; n < columns; ++n) {
        int32_t* value = p.values + n / p.panel_columns * p.rows * p.panel_columns + n % p.panel_columns;
        for (size_t m = 0; m < sums.size(); ++m, value += p.panel_columns) {
            *value -= sums[m] * zero_points[n];
        }
    }
}

// What a call is for all of its tiles.
struct Task {
    const LinearCall&   call;
    const PackedWeight& weight;
    Epilogue            epilogue;
    Tiling              tiling;
};

void run_tile(const Task& task, int64_t tile) {
    const auto& [call, w, epilogue, tiling] = task;
    const int64_t row    = tile / tiling.column_tiles * tiling.rows;
    const int64_t column = tile % tiling.column_tiles * tiling.columns;
    const int64_t rows   = std::min(tiling.rows, call.M - row);

    const void* x = static_cast<const char*>(call.x) + static_cast<size_t>(row * w.K) * size_of(call.x_type);
    DType type = call.x_type;
    if (!is_8bit(type)) {
        x    = to_signed(type, x, static_cast<size_t>(rows * w.K), call.input);
        type = DType::s8;
    }
    const auto sums = w.zero_points ? row_sums(type, x, rows, w.K) : std::vector<int32_t>();
    const int64_t end = std::min(w.N, column + tiling.columns);
    multiply(w, type, x, rows, column, end, [&](const Products& products, int64_t n, int64_t columns) {
        if (w.zero_points) {
            subtract_zero_points(products, columns, sums, w.zero_points + n);
        }
        auto* const y = static_cast<char*>(call.y) + static_cast<size_t>(row * w.N + n) * size_of(call.y_type);
        apply_epilogue(products, rows, columns, from_column(epilogue, n), y, w.N);
    });
}

void run_all(int64_t count, arm_compute::IScheduler& scheduler, const std::function<void(int64_t)>& run) {
    if (count == 1 || scheduler.num_threads() == 1) {
        for (int64_t i = 0; i < count; ++i) {
            run(i);
        }
        return;
    }
    std::vector<arm_compute::IScheduler::Workload> workloads;
    workloads.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
        workloads.emplace_back([&run, i](const arm_compute::ThreadInfo&) { run(i); });
    }
    scheduler.run_tagged_workloads(workloads, "acl_qlinear");
}

} // namespace

void linear(const LinearCall& call, const PackedWeight& weight, arm_compute::IScheduler& scheduler) {
    if (call.M == 0) {
        return;
    }
    const Task task{call, weight, epilogue_of(call, column_terms(call, weight)),
                    Tiling(call.M, weight, scheduler.num_threads())};
    run_all(task.tiling.row_tiles * task.tiling.column_tiles, scheduler, [&task](int64_t tile) { run_tile(task, tile); });
}

} // namespace acl_qlinear
