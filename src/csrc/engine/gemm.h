// SPDX-License-Identifier: MIT
// Products of activations with packed weights, in int32.
#pragma once

#include <cstdint>

#include "engine/quantize.h"
#include "engine/types.h"
#include "kernels/families.h"

namespace acl_qlinear {

// What the epilogue reads at a time.
constexpr int64_t kEpilogueColumns = 16;

// Products of some rows with some panels, panel by panel.
struct Accumulators {
    // [panels, rows, panel_columns], readable for columns up to the next multiple of kEpilogueColumns
    int32_t* values;
    int64_t rows, panel_columns;
};

// Rows of activations, [count, K].
struct Rows {
    DType type;
    const void* data;
    int64_t count, K;
    const RowQuantization* quantizations; // of floats: one for each row
    const float* pre_scale;               // of floats; see PackedWeight

    Floats floats(int64_t row, int64_t k, int64_t some) const {
        return {type, at(row, k), static_cast<size_t>(some), pre_scale ? pre_scale + k : nullptr};
    }

    // Of the values that are quantized: what a pre-scale makes is fp32.
    DType quantized_type() const { return pre_scale ? DType::f32 : type; }

    const void* at(int64_t row, int64_t k) const {
        return static_cast<const char*>(data) + static_cast<size_t>(row * K + k) * size_of(type);
    }
};

// Some rows of activations, packed once for all panels of weights.
class PackedActivations {
public:
    // All but s8 becomes s8 on the way. Uses this thread's scratch memory, so there is one at a time.
    PackedActivations(const KernelFamily& family, const Rows& x);

    // How many panels' products fit into half of an L1 cache; so many, or the fewest, that their
    // columns are a multiple of kEpilogueColumns.
    int64_t panels_at_once() const;

    // The products with `panels` panels that lie one after the other; valid until the next call.
    Accumulators multiply(const int8_t* weights, int64_t panels) const;

private:
    // The tiles of one height, which follow one another in the packed rows.
    struct Part {
        const TileKernel* kernel;
        int64_t tiles;
    };

    // The products of one block of K, which begins at `begin`, with one panel: [rows, columns].
    void multiply_block(const int8_t* panel, int64_t begin, int32_t* C) const;

    const KernelFamily& family_;
    int64_t K_, columns_;
    int64_t rows_;  // those of all tiles
    int64_t block_; // length of the blocks of K
    int parts_ = 0;
    Part part_[kFamilyKernels];
    int8_t* packed_;
};

} // namespace acl_qlinear
