// ACL's scheduler interface on PyTorch's intra-op thread pool.
#pragma once

#include <ATen/Parallel.h>

#include "arm_compute/core/CPP/CPPTypes.h"
#include "arm_compute/core/Error.h"
#include "arm_compute/runtime/IScheduler.h"

namespace acl_qlinear {

// Has as many threads as torch.get_num_threads() says, and none of its own; 1 inside a parallel
// region, and in a forked process, where OpenMP waits for threads that were not forked with it.
// Any thread may use it.
class ParallelForScheduler final : public arm_compute::IScheduler {
public:
    ParallelForScheduler();

    unsigned int num_threads() const override;

    // PyTorch decides: torch.set_num_threads.
    void set_num_threads(unsigned int) override {}

    void schedule(arm_compute::ICPPKernel* kernel, const Hints& hints) override;
    void schedule_op(arm_compute::ICPPKernel* kernel, const Hints& hints, const arm_compute::Window& window,
                     arm_compute::ITensorPack& tensors) override {
        schedule_common(kernel, hints, window, tensors);
    }

protected:
    void run_workloads(std::vector<Workload>& workloads) override {
        const auto count = static_cast<int64_t>(workloads.size());
        at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
            arm_compute::ThreadInfo info;
            info.cpu_info    = &cpu_info();
            info.num_threads = static_cast<int>(num_threads());
            info.thread_id   = at::get_thread_num();
            for (int64_t i = begin; i < end; ++i) {
                workloads[static_cast<size_t>(i)](info);
            }
        });
    }
};

} // namespace acl_qlinear
