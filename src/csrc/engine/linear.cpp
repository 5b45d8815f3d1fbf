// SPDX-License-Identifier: MIT
#include "engine/linear.h"

#include <arm_neon.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/activation.h"
#include "engine/epilogue.h"
#include "engine/errors.h"
#include "engine/gemm.h"
#include "engine/quantize.h"
#include "engine/scratch.h"
#include "engine/tiling.h"
#include "kernels/integers.h"
#include "kernels/pack_tile.h"

namespace acl_qlinear {
namespace {

// What the layer's quantization parameters make of each output column, for an Epilogue.
struct ColumnTerms {
    const int32_t* offset;   // -zero point * column sum, by row the column sum; nullptr for none
    const float* multiplier; // scale(x) * scale(w) / unit; by row without scale(x)
    const float* bias;       // bias / unit; nullptr for none
};

// The units that the activation function sees: those of y, which saves a rounding, where the
// function allows it.
double unit_of(const LinearCall& call) {
    return is_8bit(call.y.type) && is_homogeneous(call.post.activation) ? call.y.quantization.scale : 1.0;
}

// The scale of x that all rows share.
double input_scale(const LinearCall& call) {
    return call.per_row == PerRow::no ? call.x.quantization.scale : 1.0;
}

// The factor from accumulators to units for columns with this weight scale.
float multiplier_of(const LinearCall& call, double unit, double weight_scale) {
    const auto value = static_cast<float>(input_scale(call) * weight_scale / unit);
    // Outputs that are not integers have a place for infinity and zero.
    if (is_8bit(call.y.type) && !std::isnormal(value)) {
        refuse("input scale * weight scale / output scale",
               "the input scale is " + text(call.x.quantization.scale) + ", the weight scale " + text(weight_scale) +
                   ", the output scale " + text(call.y.quantization.scale));
    }
    return value;
}

float inverse_output_scale(const LinearCall& call) {
    const auto inverse = static_cast<float>(1 / call.y.quantization.scale);
    if (!std::isnormal(inverse)) {
        refuse("1 / output scale", "the output scale is " + text(call.y.quantization.scale));
    }
    return inverse;
}

// The multipliers of `columns` columns, a multiple of 4, from the weight's scales.
void fill_multipliers(const LinearCall& call, const PackedWeight& w, int64_t columns, float* multiplier) {
    const double unit = unit_of(call);
    if (w.scale_count == 1) {
        std::fill_n(multiplier, columns, multiplier_of(call, unit, w.scales[0]));
        return;
    }
    // The smallest and the largest scale stand for all.
    float64x2_t low = vld1q_f64(w.scales), high = low;
    const float64x2_t input = vdupq_n_f64(input_scale(call)), units = vdupq_n_f64(unit);
    for (int64_t n = 0; n < columns; n += 4) {
        const float64x2_t a = vld1q_f64(w.scales + n), b = vld1q_f64(w.scales + n + 2);
        low = vminq_f64(low, vminq_f64(a, b));
        high = vmaxq_f64(high, vmaxq_f64(a, b));
        const float32x2_t first = vcvt_f32_f64(vdivq_f64(vmulq_f64(a, input), units));
        vst1q_f32(multiplier + n, vcvt_high_f32_f64(first, vdivq_f64(vmulq_f64(b, input), units)));
    }
    multiplier_of(call, unit, vminvq_f64(low));
    multiplier_of(call, unit, vmaxvq_f64(high));
}

// A bias up to this many steps of an 8-bit output is exact enough in fp32: within 2^-15 steps.
constexpr double kFp32BiasSteps = 512;

// Where a larger bias cancels the products, what fp32 rounds off of it would be seen. So its whole
// multiples of `multiplier` become part of the offsets, as far as these cannot overflow, and the rest stays.
void split_bias(const LinearCall& call, const PackedWeight& w, int64_t columns, int32_t* offset,
                const float* multiplier, float* bias) {
    // What products and offsets add up to at most; both operands have 8 bits, and a zero point.
    const double most = INT32_MAX - 255.0 * (w.zero_points ? 255 : 128) * static_cast<double>(w.K);
    for (int64_t n = 0; n < columns; ++n) {
        const double value = w.bias[n] / unit_of(call), step = multiplier[n];
        const double steps = std::clamp(std::nearbyint(value / step), -most, most);
        offset[n] += static_cast<int32_t>(steps);
        bias[n] = static_cast<float>(std::fma(-steps, step, value));
    }
}

// The zero point of all rows' s8 values.
int32_t zero_point_of(const LinearCall& call) {
    return call.per_row == PerRow::no ? signed_zero_point(call.x.type, call.x.quantization.zero_point) : 0;
}

ColumnTerms column_terms(const LinearCall& call, const PackedWeight& w) {
    const int64_t columns = round_up(w.N, kEpilogueColumns);
    // A tile may begin between two multiples of kEpilogueColumns, and then reads further than these.
    const int64_t readable = columns + kEpilogueColumns;
    auto* const offset = scratch<Scratch::column_terms, int32_t>(static_cast<size_t>(3 * readable));
    auto* const multiplier = reinterpret_cast<float*>(offset + readable);
    auto* const bias = multiplier + readable;

    const int32_t zero_point = zero_point_of(call);
    for (int64_t n = 0; zero_point != 0 && n < columns; ++n) {
        offset[n] = -zero_point * w.column_sums[n];
    }
    fill_multipliers(call, w, columns, multiplier);
    ColumnTerms terms{zero_point != 0 ? offset : nullptr, multiplier, w.bias_is_nonzero ? w.bias : nullptr};
    if (call.per_row == PerRow::asymmetric) {
        terms.offset = w.column_sums;
    }
    if (w.bias_is_nonzero && is_8bit(call.y.type)) {
        terms.bias = bias;
        const auto inverse_unit = static_cast<float>(1 / unit_of(call));
        float32x4_t largest = vdupq_n_f32(0);
        for (int64_t n = 0; n < columns; n += 4) {
            const float32x4_t values = vmulq_n_f32(vld1q_f32(w.bias + n), inverse_unit);
            vst1q_f32(bias + n, values);
            largest = vmaxq_f32(largest, vabsq_f32(values));
        }
        if (vmaxvq_f32(largest) * unit_of(call) > kFp32BiasSteps * call.y.quantization.scale) {
            std::fill_n(offset, zero_point != 0 ? 0 : columns, 0);
            split_bias(call, w, columns, offset, multiplier, bias);
            terms.offset = offset;
        }
    }
    return terms;
}

Epilogue epilogue_of(const LinearCall& call, const ColumnTerms& terms) {
    Epilogue e{};
    e.offset = terms.offset;
    e.multiplier = terms.multiplier;
    e.bias = terms.bias;
    e.post = call.post;
    e.type = call.y.type;
    e.inverse_scale = 1;
    if (is_8bit(call.y.type)) {
        if (!is_homogeneous(call.post.activation)) {
            e.inverse_scale = inverse_output_scale(call);
        }
        e.zero_point = call.y.quantization.zero_point;
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

// Rows of floats as s8, in `values`.
Rows as_integers(const Rows& x, std::vector<int8_t>& values) {
    values.resize(static_cast<size_t>(x.count * x.K + kChunk));
    for (int64_t row = 0; row < x.count; ++row) {
        quantize(x.floats(row, 0, x.K), x.quantizations[row], values.data() + row * x.K);
    }
    return {DType::s8, values.data(), x.count, x.K, x.quantizations, nullptr};
}

// For each row of x, of type s8 or u8, the sum of its values as s8.
std::vector<int32_t> row_sums(const Rows& x) {
    std::vector<int32_t> sums(static_cast<size_t>(x.count));
    const auto sum = [&](const auto* row, int32_t shift) {
        for (int32_t& value : sums) {
            value = std::accumulate(row, row + x.K, -shift * static_cast<int32_t>(x.K));
            row += x.K;
        }
    };
    if (x.type == DType::u8) {
        sum(static_cast<const uint8_t*>(x.data), 128);
    } else {
        sum(static_cast<const int8_t*>(x.data), 0);
    }
    return sums;
}

// Weights with zero points: what the products with the unshifted weights have too much,
// sum over k of x[m, k] * zero point[n]. zero_points: of the products' columns.
void subtract_zero_points(const Accumulators& acc, int64_t columns, const std::vector<int32_t>& sums,
                          const int32_t* zero_points) {
    for (int64_t n = 0; n < columns; ++n) {
        int32_t* value = acc.values + n / acc.panel_columns * acc.rows * acc.panel_columns + n % acc.panel_columns;
        for (const int32_t sum : sums) {
            *value -= sum * zero_points[n];
            value += acc.panel_columns;
        }
    }
}

// What a call is for all of its tiles.
struct Task {
    const LinearCall& call;
    const PackedWeight& weight;
    Epilogue epilogue;
    Tiling tiling;
};

// How each row of floats becomes integers.
const RowQuantization* quantizations_of(const LinearCall& call, const Rows& x) {
    auto* const all = scratch<Scratch::row_quantizations, RowQuantization>(static_cast<size_t>(x.count));
    if (call.per_row == PerRow::no) {
        const auto scale = static_cast<float>(call.x.quantization.scale);
        std::fill_n(all, x.count, RowQuantization{scale, 1 / scale, call.x.quantization.zero_point});
        return all;
    }
    for (int64_t row = 0; row < x.count; ++row) {
        all[row] = choose_row_quantization(x.quantized_type(), range_of(x.floats(row, 0, x.K)), call.per_row);
    }
    return all;
}

// The rows of x that a tile needs.
Rows rows_of(const Task& task, const Tile& tile) {
    const LinearCall& call = task.call;
    Rows x{call.x.type, call.x.data, tile.rows, task.weight.K, nullptr, task.weight.pre_scale};
    x.data = x.at(tile.row, 0);
    x.quantizations = is_8bit(x.type) ? nullptr : quantizations_of(call, x);
    return x;
}

void run_tile(const Task& task, const Tile& tile) {
    const LinearCall& call = task.call;
    const PackedWeight& w = task.weight;
    Rows x = rows_of(task, tile);
    std::vector<int8_t> integers;
    std::vector<int32_t> sums;
    if (w.zero_points) {
        x = is_8bit(x.type) ? x : as_integers(x, integers);
        sums = row_sums(x);
    }
    const PackedActivations packed(*w.family, x);
    Epilogue epilogue = task.epilogue;
    epilogue.rows = call.per_row == PerRow::no ? nullptr : x.quantizations;
    const int64_t panel = w.family->panel_columns(), most = packed.panels_at_once();
    const int64_t end = tile.column + tile.columns;
    for (int64_t n = tile.column, panels; n < end; n += panels * panel) {
        panels = std::min(most, ceil_div(end - n, panel));
        const int64_t columns = std::min(panels * panel, end - n);
        const Accumulators acc = packed.multiply(w.values + n * round_up(w.K, w.family->k_step), panels);
        if (w.zero_points) {
            subtract_zero_points(acc, columns, sums, w.zero_points + n);
        }
        auto* const y =
            static_cast<char*>(call.y.data) + static_cast<size_t>(tile.row * w.N + n) * size_of(call.y.type);
        apply_epilogue(acc, tile.rows, columns, from_column(epilogue, n), y, w.N);
    }
}

// How many threads a call is worth. A kernel takes as long for a part of its rows as for all.
int64_t threads_for(const Problem& problem, const Parallel& parallel) {
    const int64_t work = round_up(problem.M, kMaxTileRows) * problem.N * problem.K;
    return std::clamp<int64_t>(work / parallel.grain, 1, parallel.num_threads);
}

} // namespace

void linear(const LinearCall& call, const PackedWeight& weight, const Parallel& parallel) {
    if (weight.pre_scale && is_8bit(call.x.type)) {
        throw std::invalid_argument("x has integers, expected floats: the weight was packed with a pre_scale");
    }
    if (call.M == 0) {
        return;
    }
    const Problem problem{call.M, weight.N, weight.K};
    const int64_t num_threads = threads_for(problem, parallel);
    const Task task{call, weight, epilogue_of(call, column_terms(call, weight)),
                    Tiling::choose(problem, weight.family->panel_columns(), num_threads)};
    const uint32_t vectors = sve_bytes();
    const auto run_tiles = [&task, vectors](int64_t begin, int64_t end) {
        // Each thread has its own length, and panels are as wide as vectors.
        if (sve_bytes() != vectors) {
            throw std::invalid_argument("a thread has SVE vectors of " + std::to_string(sve_bytes()) +
                                        " bytes, and the calling one of " + std::to_string(vectors) +
                                        ": set the vector length before the first call");
        }
        for (int64_t i = begin; i < end; ++i) {
            run_tile(task, task.tiling[i]);
        }
    };
    if (task.tiling.count() == 1 || num_threads == 1) {
        run_tiles(0, task.tiling.count());
    } else {
        parallel.parallel_for(task.tiling.count(), run_tiles);
    }
}

} // namespace acl_qlinear
