// SPDX-License-Identifier: MIT
// Families of kernels, which share one layout of packed weights.
//
// The tallest kernel of a family, for tiles of 8 rows, is ACL's. For fewer rows ACL has kernels
// that read another layout; ours read the same. A family is called after ACL's kernel.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/micro_kernel.h"

namespace acl_qlinear {

// The most kernels of a family.
constexpr int kFamilyKernels = 4;

// Kernels that differ in their rows alone.
struct KernelFamily {
    const char* name; // that of ACL's kernel
    IsaFeature isa;
    int64_t columns; // of a panel; 0 where it is ...
    int64_t vectors; // ... that many SVE vectors of 32-bit values
    int64_t k_step;
    std::array<TileKernel, kFamilyKernels> kernels; // the tallest first; the last ones may be empty

    // Whether this CPU has what the kernels need.
    bool runs_here() const;
    int64_t panel_columns() const;
    // The size of packed weights.
    size_t packed_bytes(int64_t N, int64_t K) const;
};

struct FamilyRange {
    const KernelFamily *first, *last;
    const KernelFamily* begin() const { return first; }
    const KernelFamily* end() const { return last; }
};

// The table of all families, whether this CPU can run them or not.
FamilyRange all_families();

// The family whose tallest kernel ACL takes for the fastest on this CPU.
// Throws std::runtime_error when ACL has none.
const KernelFamily& choose_family(int64_t N, int64_t K);

// The family called `name`, or nullptr.
const KernelFamily* find_family(const char* name);

// The bytes of this thread's SVE vectors, which some panels depend on; 0 without SVE. prctl() can
// change them at any time.
uint32_t sve_bytes();

// Weights, given as [N, K] row-major, into family.packed_bytes(N, K) bytes that are 0: one panel
// after the other, as B of the contract, the last one filled up.
void pack_weights(const KernelFamily& family, int64_t N, int64_t K, const int8_t* values, int8_t* packed);

// The reverse.
void unpack_weights(const KernelFamily& family, int64_t N, int64_t K, const int8_t* packed, int8_t* values);

} // namespace acl_qlinear
