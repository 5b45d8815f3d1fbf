// SPDX-License-Identifier: MIT
// Memory that a thread keeps from call to call, so that a call allocates nothing.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace acl_qlinear {

enum class Scratch { row_quantizations, packed_activations, accumulators, column_terms };

// `count` uninitialised values, valid until this thread next asks for the same
// slot; grows, and stays as large as the largest tile (bounded by the tiling).
template <Scratch slot, typename T> T* scratch(size_t count) {
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    thread_local std::unique_ptr<void, Free> block;
    thread_local size_t capacity = 0;
    if (const size_t bytes = (count * sizeof(T) + 63) / 64 * 64; bytes > capacity) {
        block.reset(std::aligned_alloc(64, bytes));
        capacity = block ? bytes : 0;
        if (!block) {
            throw std::bad_alloc();
        }
    }
    return static_cast<T*>(block.get());
}

} // namespace acl_qlinear
