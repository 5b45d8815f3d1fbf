// SPDX-License-Identifier: MIT
// How the outputs of a call are cut into tiles, which are what threads share.
#pragma once

#include <algorithm>
#include <cstdint>

namespace acl_qlinear {

// The outputs [M, N] of a layer with K inputs.
struct Problem {
    int64_t M, N, K;
};

// Some rows of the outputs, and some columns of them.
struct Tile {
    int64_t row, rows;
    int64_t column, columns;
};

// Tiles are numbered row by row; together they are all outputs, each of them once.
class Tiling {
public:
    // For `threads` threads, so that the busiest has little to do. Tiles' columns begin where a
    // panel of weights does, and a tile has at most as many rows as are good to pack at once.
    static Tiling choose(const Problem& problem, int64_t panel_columns, int64_t threads);

    int64_t count() const { return row_tiles_ * column_tiles_; }

    Tile operator[](int64_t index) const {
        const int64_t row = index / column_tiles_ * rows_, column = index % column_tiles_ * columns_;
        return {row, std::min(rows_, M_ - row), column, std::min(columns_, N_ - column)};
    }

private:
    Tiling(const Problem& problem, int64_t panel_columns, int64_t row_tiles, int64_t column_tiles);

    // What the busiest of `threads` threads does.
    int64_t cost(int64_t threads) const;

    int64_t M_, N_;
    int64_t rows_, columns_; // of one tile; the last ones may be smaller
    int64_t row_tiles_, column_tiles_;
};

} // namespace acl_qlinear
