// SPDX-License-Identifier: MIT
#include "torch/parallel_aten.h"

#include <ATen/Parallel.h>
#include <pthread.h>

#include <atomic>

namespace acl_qlinear {
namespace {

std::atomic<bool> is_forked{false};

// When this library is loaded: a process may fork before its first call.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { is_forked = true; });

} // namespace

Parallel aten_threads() {
    const bool is_single = is_forked.load(std::memory_order_relaxed) || at::in_parallel_region();
    return {is_single ? 1 : at::get_num_threads(),
            [](int64_t count, RangeFunction f) { at::parallel_for(0, count, /*grain_size=*/1, f); }};
}

} // namespace acl_qlinear
