// SPDX-License-Identifier: MIT
#include "engine/tiling.h"

#include "kernels/integers.h"
#include "kernels/micro_kernel.h"

namespace acl_qlinear {
namespace {

// The most rows that are packed at once: enough to use a panel of weights often while it is in the
// L1 cache; packed, they take half of a 1 MiB L2 cache.
int64_t max_rows(int64_t K) {
    return std::clamp<int64_t>(512 * 1024 / K / kMaxTileRows * kMaxTileRows, kMaxTileRows, 128);
}

// Packing a row costs as much as its products with so many columns.
constexpr int64_t kPackingColumns = 32;

} // namespace

Tiling Tiling::choose(const Problem& problem, int64_t panel_columns, int64_t threads) {
    const int64_t fewest = ceil_div(problem.M, max_rows(problem.K));
    Tiling best(problem, panel_columns, fewest, 1);
    for (int64_t i = 0; threads > 1 && i < threads; ++i) {
        const int64_t row_tiles = fewest + i;
        const Tiling other(problem, panel_columns, row_tiles, ceil_div(threads, row_tiles));
        if (other.cost(threads) < best.cost(threads)) {
            best = other;
        }
    }
    return best;
}

Tiling::Tiling(const Problem& problem, int64_t panel_columns, int64_t row_tiles, int64_t column_tiles)
    : M_(problem.M), N_(problem.N) {
    const int64_t panels = ceil_div(N_, panel_columns);
    // A partial tile of a kernel's costs as much as a whole one.
    rows_ = round_up(ceil_div(M_, row_tiles), kMaxTileRows);
    row_tiles_ = ceil_div(M_, rows_);
    columns_ = ceil_div(panels, std::min(panels, column_tiles)) * panel_columns;
    column_tiles_ = ceil_div(N_, columns_);
}

int64_t Tiling::cost(int64_t threads) const {
    return ceil_div(count(), threads) * rows_ * (columns_ + kPackingColumns);
}

} // namespace acl_qlinear
