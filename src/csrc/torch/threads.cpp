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

// PyTorch starts a thread for each 32,768 elements (at::internal::GRAIN_SIZE). Adding so many takes 5 thousand
// modelled cycles of a Neoverse V1, which has 128 multiply-accumulates in a cycle.
constexpr int64_t kGrain = 5000 * 128;

} // namespace

Parallel threads() {
    const bool is_single = is_forked.load(std::memory_order_relaxed) || host::in_parallel_region();
    return {is_single ? 1 : host::num_threads(), kGrain, host::parallel_for};
}

} // namespace acl_qlinear::operators
