// SPDX-License-Identifier: MIT
#include "engine/gemm.h"

#include <algorithm>
#include <numeric>

#include "engine/scratch.h"
#include "kernels/integers.h"
#include "kernels/pack_tile.h"

namespace acl_qlinear {
namespace {

// Half of the L1 cache of Neoverse cores.
constexpr int64_t kHalfL1 = 32 * 1024;

// Floats of a row that become s8 before they are packed: a tile of them takes an eighth of that cache.
constexpr int64_t kQuantizedAtOnce = 1024;

// A tile's values [begin, begin + count) of each row; `first` is the tile's first row of x.
void pack_part(const TileKernel& kernel, const Rows& x, int64_t first, int64_t begin, int64_t count, int8_t* out) {
    // The last row fills up the tile: its products are not used.
    const int64_t last = std::min(kernel.rows, x.count - first) - 1;
    const int8_t* row[kMaxTileRows];
    if (is_8bit(x.type)) {
        for (int64_t j = 0; j < kernel.rows; ++j) {
            row[j] = static_cast<const int8_t*>(x.at(first + std::min(j, last), 0));
        }
        kernel.pack(row, begin, count, vdupq_n_s8(x.type == DType::u8 ? INT8_MIN : 0), out);
        return;
    }
    alignas(kChunk) int8_t values[kMaxTileRows][kQuantizedAtOnce];
    for (int64_t j = 0; j < kernel.rows; ++j) {
        row[j] = values[std::min(j, last)];
    }
    for (int64_t k = 0; k < count; k += kQuantizedAtOnce) {
        const int64_t some = std::min(kQuantizedAtOnce, count - k);
        for (int64_t j = 0; j <= last; ++j) {
            quantize(x.floats(first + j, begin + k, some), x.quantizations[first + j], values[j]);
        }
        kernel.pack(row, 0, some, vdupq_n_s8(0), out + kernel.rows * k);
    }
}

} // namespace

PackedActivations::PackedActivations(const KernelFamily& family, const Rows& x)
    : family_(family), K_(x.K), columns_(family.panel_columns()), rows_(0) {
    int64_t rest = x.count;
    for (const TileKernel& kernel : family.kernels) {
        if (kernel.run && rest >= kernel.min_rows) {
            const int64_t tiles = rest / kernel.rows + (rest % kernel.rows >= kernel.min_rows);
            part_[parts_++] = {&kernel, tiles};
            rows_ += tiles * kernel.rows;
            rest -= tiles * kernel.rows;
        }
    }
    // Where a panel is used more than once, a block of its K stays in the L1 cache in between. All
    // blocks are equally long but the last.
    const int64_t blocks = rows_ > kMaxTileRows ? ceil_div(K_ * columns_, kHalfL1) : 1;
    block_ = round_up(ceil_div(K_, blocks), kChunk);
    packed_ = scratch<Scratch::packed_activations, int8_t>(static_cast<size_t>(rows_ * round_up(K_, kChunk)));

    int8_t* out = packed_;
    for (int64_t begin = 0; begin < K_; begin += block_) {
        const int64_t count = std::min(block_, K_ - begin);
        int64_t first = 0;
        for (int i = 0; i < parts_; ++i) {
            const TileKernel& kernel = *part_[i].kernel;
            for (int64_t tile = 0; tile < part_[i].tiles; ++tile, first += kernel.rows) {
                pack_part(kernel, x, first, begin, count, out);
                out += kernel.rows * round_up(count, family.k_step);
            }
        }
    }
}

int64_t PackedActivations::panels_at_once() const {
    const int64_t panels = kHalfL1 / (rows_ * columns_ * static_cast<int64_t>(sizeof(int32_t)));
    const int64_t fewest = kEpilogueColumns / std::gcd(kEpilogueColumns, columns_);
    return std::max<int64_t>(1, panels / fewest) * fewest;
}

Accumulators PackedActivations::multiply(const int8_t* weights, int64_t panels) const {
    const int64_t K = round_up(K_, family_.k_step), size = rows_ * columns_;
    const int64_t more = ceil_div(kEpilogueColumns, columns_);
    int32_t* const sums = scratch<Scratch::accumulators, int32_t>(static_cast<size_t>((panels + more) * size));
    const Accumulators accumulators{sums, rows_, columns_};
    if (rows_ == part_[0].kernel->rows) {
        // One tile: all panels in one call.
        part_[0].kernel->run(packed_, weights, sums, 1, static_cast<int>(panels), static_cast<int>(K));
        return accumulators;
    }
    for (int64_t panel = 0; panel < panels; ++panel, weights += K * columns_) {
        int32_t* const sum = sums + panel * size;
        multiply_block(weights, 0, sum);
        for (int64_t begin = block_; begin < K; begin += block_) {
            int32_t* const block = sums + panels * size;
            multiply_block(weights, begin, block);
            for (int64_t i = 0; i < size; ++i) {
                sum[i] += block[i];
            }
        }
    }
    return accumulators;
}

void PackedActivations::multiply_block(const int8_t* panel, int64_t begin, int32_t* C) const {
    const int64_t count = std::min(block_, round_up(K_, family_.k_step) - begin);
    const int8_t* A = packed_ + rows_ * begin;
    for (int i = 0; i < parts_; ++i) {
        const auto& [kernel, tiles] = part_[i];
        kernel->run(A, panel + begin * columns_, C, static_cast<int>(tiles), 1, static_cast<int>(count));
        A += tiles * kernel->rows * count;
        C += tiles * kernel->rows * columns_;
    }
}

} // namespace acl_qlinear
