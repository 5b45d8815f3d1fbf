#include "linear.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "epilogue.h"
#include "gemm.h"
#include "scratch.h"

namespace acl_qlinear {
namespace {

constexpr int64_t kStep = 16;

int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

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
    const int64_t columns = ceil_div(w.N, kStep) * kStep;
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
        e.lowest     = call.activation == Activation::relu ? e.zero_point : call.y_type == DType::s8 ? -128 : 0;
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

// Weights with zero points: what the products with the unshifted weights have too much,
// sum over k of x[m, k] * zero point[n].
void subtract_zero_points(const GemmTile& gemm, const int32_t* zero_points) {
    const int64_t width = gemm.column_end - gemm.column_begin;
    for (int64_t m = 0; m < gemm.rows; ++m) {
        int32_t sum = 0;
        for (int64_t k = 0; k < gemm.K; ++k) {
            sum += gemm.activations[m * gemm.K + k];
        }
        for (int64_t n = 0; n < width; ++n) {
            gemm.out[m * width + n] -= sum * zero_points[gemm.column_begin + n];
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
    const int64_t width  = std::min(tiling.columns, w.N - column);

    auto* const acc = scratch<Scratch::accumulators, int32_t>(static_cast<size_t>(rows * width + kStep));
    const int64_t bit = rows - 1;
    // Only hybrid kernels can run a part of the columns.
    const bool is_wide = width == w.N && (w.kernels.wide_for_rows[bit / 64] >> (bit % 64) & 1);
    const auto* const x = static_cast<const char*>(call.x) + static_cast<size_t>(row * w.K) * size_of(call.x_type);

    GemmTile gemm{};
    gemm.N            = w.N;
    gemm.K            = w.K;
    gemm.rows         = rows;
    gemm.column_begin = column;
    gemm.column_end   = column + width;
    gemm.activations  = to_signed(call.x_type, x, static_cast<size_t>(rows * w.K), call.input);
    gemm.panels       = is_wide ? w.wide_panels : w.narrow_panels;
    gemm.out          = acc;
    const GemmKernel& kernel = is_wide ? w.kernels.wide : w.kernels.narrow;
    Epilogue e = from_column(epilogue, column);
    if (!kernel.is_hybrid) {
        std::swap(gemm.offset, e.offset);
    }
    run_gemm(kernel, gemm);
    if (w.zero_points) {
        subtract_zero_points(gemm, w.zero_points);
    }
    auto* const y = static_cast<char*>(call.y) + static_cast<size_t>(row * w.N + column) * size_of(call.y_type);
    apply_epilogue(acc, rows, width, e, y, w.N);
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

void unpack(const PackedWeight& w, int8_t* values, arm_compute::IScheduler& scheduler) {
    run_all(ceil_div(w.K, kMaxRows), scheduler, [&](int64_t block) {
        const int64_t begin = block * kMaxRows, rows = std::min(kMaxRows, w.K - begin);
        auto* const identity = scratch<Scratch::activations, int8_t>(static_cast<size_t>(rows * w.K));
        std::memset(identity, 0, static_cast<size_t>(rows * w.K));
        for (int64_t i = 0; i < rows; ++i) {
            identity[i * w.K + begin + i] = 1;
        }
        auto* const columns = scratch<Scratch::accumulators, int32_t>(static_cast<size_t>(rows * w.N));
        run_gemm(w.kernels.narrow, {w.N, w.K, rows, 0, w.N, identity, w.narrow_panels, nullptr, columns});
        for (int64_t n = 0; n < w.N; ++n) {
            for (int64_t i = 0; i < rows; ++i) {
                values[n * w.K + begin + i] = static_cast<int8_t>(columns[i * w.N + n]);
            }
        }
    });
}

} // namespace acl_qlinear
