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

} // namespace

PackedActivations::PackedActivations(const KernelFamily& family, const Input& x, int64_t rows, int64_t K)
    : family_(family), K_(K), columns_(family.panel_columns()), rows_(0) {
    int64_t rest = rows;
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
    const int64_t blocks = rows_ > kMaxTileRows ? ceil_div(K * columns_, kHalfL1) : 1;
    block_ = round_up(ceil_div(K, blocks), kChunk);
    packed_ = scratch<Scratch::packed_activations, int8_t>(static_cast<size_t>(rows_ * round_up(K, kChunk)));

    const int8x16_t flip = vdupq_n_s8(x.type == DType::u8 ? INT8_MIN : 0);
    int8_t* out = packed_;
    for (int64_t begin = 0; begin < K; begin += block_) {
        const int64_t count = std::min(block_, K - begin);
        int64_t first = 0;
        for (int i = 0; i < parts_; ++i) {
            const TileKernel& kernel = *part_[i].kernel;
            for (int64_t tile = 0; tile < part_[i].tiles; ++tile, first += kernel.rows) {
                const int8_t* row[kMaxTileRows];
                for (int64_t j = 0; j < kernel.rows; ++j) {
                    // Any row fills up the last tile: its products are not used.
                    row[j] = static_cast<const int8_t*>(x.data) + std::min(first + j, rows - 1) * K;
                }
                kernel.pack(row, begin, count, flip, out);
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
