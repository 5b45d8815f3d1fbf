// SPDX-License-Identifier: MIT
#include <pthread.h>

#include <atomic>

#include "torch/host.h"
#include "torch/operators.h"

namespace acl_qlinear::operators {
namespace {

std::atomic<bool> is_forked{false};

// When this library is loaded: a process may fork before its first call.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { is_forked = true; });

} // namespace

Parallel threads() {
    const bool is_single = is_forked.load(std::memory_order_relaxed) || host::in_parallel_region();
    return {is_single ? 1 : host::num_threads(), host::parallel_for};
}

} // namespace acl_qlinear::operators
