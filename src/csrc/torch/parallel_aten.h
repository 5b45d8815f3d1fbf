// SPDX-License-Identifier: MIT
// The engine's threads: PyTorch's own.
#pragma once

#include "engine/parallel.h"

namespace acl_qlinear {

// As many threads as torch.get_num_threads() says; 1 inside a parallel region, and in a forked
// process, where OpenMP would deadlock waiting for threads that fork() did not copy.
Parallel aten_threads();

} // namespace acl_qlinear
