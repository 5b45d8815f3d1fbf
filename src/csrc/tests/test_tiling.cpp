// SPDX-License-Identifier: MIT
// Tiles are all outputs, each of them once.
#include <gtest/gtest.h>

#include "engine/tiling.h"
#include "tests/support.h"

namespace acl_qlinear {
namespace {

using testing::Random;

struct Choice {
    Problem problem;
    int64_t panel_columns, threads;
};

Choice random_choice(Random& random, int64_t largest) {
    // As many small sizes as large ones.
    const auto size = [&](int64_t most) {
        return static_cast<int64_t>(std::exp2(random.real(0, std::log2(static_cast<double>(most) + 0.99))));
    };
    return {{size(largest), size(largest), size(65793)}, random.one_of<int64_t>({4, 12, 24, 36, 48}), size(128)};
}

void check_tiles(const Tiling& tiling, const Choice& c) {
    for (int64_t i = 0; i < tiling.count(); ++i) {
        const Tile tile = tiling[i];
        ASSERT_TRUE(tile.rows >= 1 && tile.rows <= 128 && tile.columns >= 1) << i;
        ASSERT_TRUE(tile.row >= 0 && tile.row + tile.rows <= c.problem.M) << i;
        ASSERT_TRUE(tile.column >= 0 && tile.column + tile.columns <= c.problem.N) << i;
        ASSERT_EQ(tile.column % c.panel_columns, 0) << i;
    }
}

TEST(Tiling, CoversEveryOutputOnce) {
    Random random(10);
    for (int i = 0; i < 4000; ++i) {
        const Choice c = random_choice(random, 400);
        SCOPED_TRACE(::testing::Message() << "M=" << c.problem.M << " N=" << c.problem.N << " K=" << c.problem.K
                                          << " panels of " << c.panel_columns << ", threads " << c.threads);
        const Tiling tiling = Tiling::choose(c.problem, c.panel_columns, c.threads);
        check_tiles(tiling, c);
        std::vector<uint8_t> times(static_cast<size_t>(c.problem.M * c.problem.N));
        for (int64_t j = 0; j < tiling.count(); ++j) {
            const Tile tile = tiling[j];
            for (int64_t m = tile.row; m < tile.row + tile.rows; ++m) {
                uint8_t* const row = &times[static_cast<size_t>(m * c.problem.N)];
                for (int64_t n = tile.column; n < tile.column + tile.columns; ++n) {
                    ++row[n];
                }
            }
        }
        ASSERT_TRUE(std::all_of(times.begin(), times.end(), [](uint8_t count) { return count == 1; }));
    }
}

// Too many outputs to mark: tiles that have as many together, and no two of which overlap, since
// each begins where the one before ends.
TEST(Tiling, CoversLargeOutputs) {
    Random random(11);
    for (int i = 0; i < 4000; ++i) {
        const Choice c = random_choice(random, 200000);
        SCOPED_TRACE(::testing::Message() << "M=" << c.problem.M << " N=" << c.problem.N << " K=" << c.problem.K
                                          << " panels of " << c.panel_columns << ", threads " << c.threads);
        const Tiling tiling = Tiling::choose(c.problem, c.panel_columns, c.threads);
        check_tiles(tiling, c);
        int64_t row = 0, column = 0;
        for (int64_t j = 0; j < tiling.count(); ++j) {
            const Tile tile = tiling[j];
            ASSERT_TRUE(tile.row == row && tile.column == column) << j;
            column += tile.columns;
            if (column == c.problem.N) {
                column = 0;
                row += tile.rows;
            }
        }
        ASSERT_TRUE(row == c.problem.M && column == 0);
    }
}

TEST(Tiling, ThreadsHaveTheirShare) {
    for (const int64_t threads : {2, 4, 8, 16}) {
        for (const int64_t M : {1, 8, 128, 512}) {
            const Tiling tiling = Tiling::choose({M, 768, 768}, 24, threads);
            EXPECT_EQ(tiling.count() % threads, 0) << "M=" << M << ", threads " << threads;
        }
    }
}

} // namespace
} // namespace acl_qlinear
