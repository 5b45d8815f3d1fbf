#include "parallel_for_scheduler.h"

#include "arm_compute/core/CPP/ICPPKernel.h"
#include "arm_compute/core/ITensorPack.h"

namespace acl_qlinear {

void ParallelForScheduler::schedule(arm_compute::ICPPKernel* kernel, const Hints& hints) {
    arm_compute::ITensorPack tensors;
    schedule_common(kernel, hints, kernel->window(), tensors);
}

} // namespace acl_qlinear
