#include "parallel_for_scheduler.h"

#include <pthread.h>

#include <atomic>

#include "arm_compute/core/CPP/ICPPKernel.h"
#include "arm_compute/core/ITensorPack.h"

namespace acl_qlinear {
namespace {

std::atomic<bool> is_forked{false};

} // namespace

ParallelForScheduler::ParallelForScheduler() {
    pthread_atfork(nullptr, nullptr, [] { is_forked = true; });
}

unsigned int ParallelForScheduler::num_threads() const {
    const bool is_single = is_forked.load(std::memory_order_relaxed) || at::in_parallel_region();
    return is_single ? 1u : static_cast<unsigned int>(at::get_num_threads());
}

void ParallelForScheduler::schedule(arm_compute::ICPPKernel* kernel, const Hints& hints) {
    arm_compute::ITensorPack tensors;
    schedule_common(kernel, hints, kernel->window(), tensors);
}

} // namespace acl_qlinear
