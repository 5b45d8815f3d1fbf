// The int8 GEMM kernels, s8 x s8 -> s32, and the one layout of packed weights that those of a
// family share.
//
// For tiles of 8 rows they are ACL's own (arm_gemm's interleaved kernels), called directly: the
// driver around them in arm_gemm merges their tiles into rows in a pass over all results, and one
// more for each block of K; and ACL's public function NEGEMMLowpMatrixMultiplyCore keeps a packed
// copy of the weights for every M besides. For fewer rows ACL has kernels that read another
// layout; those here (few_rows.h) read the same.
#pragma once

#include <arm_neon.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace acl_qlinear {

// Computes the products of `tiles` tiles of activations with `panels` panels of weights, sums over
// k of A[m, k] * B[k, n]. K is a multiple of the family's step. What is one after the other, the
// slowest index first:
//   A  tiles, steps of K, rows of a tile, `step` values
//   B  panels, steps of K, columns of a panel, `step` values
//   C  tiles, panels, rows of a tile, columns of a panel
using RunTiles = void(const int8_t* A, const int8_t* B, int32_t* C, int tiles, int panels, int K);

// Packs the values [k, k + count) of a tile's rows as A; may write up to 15 values of each row
// more. `flip` is xor'ed to every value.
using PackTile = void(const int8_t* const* rows, int64_t k, int64_t count, int8x16_t flip, int8_t* A);

struct TileKernel {
    int64_t   rows;   // of a tile
    int64_t   fewest; // rows for which it is used: missing ones cost as much as others
    RunTiles* run;
    PackTile* pack;
};

constexpr int64_t kMaxTileRows = 8;

// What a CPU must have beyond Armv8.2-A.
enum class Needs { nothing, dot_product, i8mm, sve, sve_i8mm };

// Kernels that differ in their rows alone, the tallest first; the last ones may be empty.
struct KernelFamily {
    const char* name;    // ACL's name of the tallest
    Needs       needs;
    int64_t     columns; // of a panel; 0 where it is ...
    int64_t     vectors; // ... that many scalable vectors of 32-bit values
    int64_t     step;
    std::array<TileKernel, 4> kernels;

    // Whether this CPU has what the kernels need.
    bool runs_here() const;
    int64_t panel_columns() const;
    // The size of packed weights.
    size_t packed_bytes(int64_t N, int64_t K) const;
};

// The family whose tallest kernel ACL takes for the fastest on this CPU.
// Throws std::runtime_error when ACL has none.
const KernelFamily& choose_family(int64_t N, int64_t K);

// The family called `name`, or nullptr.
const KernelFamily* find_family(const char* name);

// The bytes of a scalable vector, which some panels depend on; 0 without SVE.
uint32_t sve_bytes();

// Weights, given as [N, K] row-major, into family.packed_bytes(N, K) bytes that are 0: one panel
// after the other, the last one filled up.
void pack_weights(const KernelFamily& family, int64_t N, int64_t K, const int8_t* values, int8_t* packed);

// The reverse.
void unpack_weights(const KernelFamily& family, int64_t N, int64_t K, const int8_t* packed, int8_t* values);

} // namespace acl_qlinear
