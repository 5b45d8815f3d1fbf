#include "gemm.h"

#include <algorithm>

#include "integers.h"
#include "pack_tile.h"
#include "scratch.h"

namespace acl_qlinear {
namespace {

// Half of the L1 cache of Neoverse cores.
constexpr int64_t kHalfL1 = 32 * 1024;

} // namespace

int64_t max_rows(int64_t K) {
    return std::clamp<int64_t>(512 * 1024 / K / kMaxTileRows * kMaxTileRows, kMaxTileRows, 128);
}

PackedRows::PackedRows(const KernelFamily& family, DType type, const void* x, int64_t rows, int64_t K)
    : family_(family), K_(K), columns_(family.panel_columns()), rows_(0) {
    int64_t rest = rows;
    for (const TileKernel& kernel : family.kernels) {
        if (kernel.run && rest >= kernel.fewest) {
            const int64_t tiles = rest / kernel.rows + (rest % kernel.rows >= kernel.fewest);
            part_[parts_++] = {&kernel, tiles};
            rows_ += tiles * kernel.rows;
            rest -= tiles * kernel.rows;
        }
    }
    // Where a panel is used more than once, a block of its K stays in the L1 cache in between. All
    // blocks are equally long but the last.
    const int64_t blocks = rows_ > kMaxTileRows ? ceil_div(K * columns_, kHalfL1) : 1;
    block_  = round_up(ceil_div(K, blocks), kChunk);
    packed_ = scratch<Scratch::packed_activations, int8_t>(static_cast<size_t>(rows_ * round_up(K, kChunk)));

    const int8x16_t flip = vdupq_n_s8(type == DType::u8 ? INT8_MIN : 0);
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
                    row[j] = static_cast<const int8_t*>(x) + std::min(first + j, rows - 1) * K;
                }
                kernel.pack(row, begin, count, flip, out);
                out += kernel.rows * round_up(count, family.step);
            }
        }
    }
}

int64_t PackedRows::panels_at_once() const {
    return std::max<int64_t>(1, kHalfL1 / (rows_ * columns_ * static_cast<int64_t>(sizeof(int32_t))));
}

Products PackedRows::multiply(const int8_t* weights, int64_t panels) const {
    const int64_t K = round_up(K_, family_.step), size = rows_ * columns_;
    int32_t* const sums = scratch<Scratch::accumulators, int32_t>(static_cast<size_t>((panels + 1) * size + 16));
    for (int64_t panel = 0; panel < panels; ++panel) {
        int32_t* const sum = sums + panel * size;
        for (int64_t begin = 0; begin < K_; begin += block_) {
            const int64_t count = std::min(block_, K - begin);
            int32_t* const block = begin == 0 ? sum : sums + panels * size;
            const int8_t*  A     = packed_ + rows_ * begin;
            int32_t*       C     = block;
            for (int i = 0; i < parts_; ++i) {
                const auto& [kernel, tiles] = part_[i];
                kernel->run(A, weights + (panel * K + begin) * columns_, C, static_cast<int>(tiles), 1,
                            static_cast<int>(count));
                A += tiles * kernel->rows * count;
                C += tiles * kernel->rows * columns_;
            }
            for (int64_t i = 0; begin != 0 && i < size; ++i) {
                sum[i] += block[i];
            }
        }
    }
    return {sums, rows_, columns_, panels};
}

} // namespace acl_qlinear
