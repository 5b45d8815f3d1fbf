// SPDX-License-Identifier: MIT
#include "kernels/acl_kernels.h"

// The library that our calls of ACL go to: another one in the process, in everybody's scope,
// would come before ours. For acl_qlinear/_load.py.
extern "C" [[gnu::visibility("default")]] const char* acl_qlinear_arm_compute_path() {
    return acl_qlinear::acl::library_path();
}
