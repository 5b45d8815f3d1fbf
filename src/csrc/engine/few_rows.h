// Kernels for one tile of fewer rows than ACL's have, over the panels that ACL's read; see
// kernels.h.
#pragma once

#include "kernels.h"

namespace acl_qlinear {

// Panels of 3 scalable vectors; step 8: for CPUs with SVE and i8mm.
RunTiles sve_mmla_2, sve_mmla_4;
// Panels of 3 scalable vectors; step 4: for CPUs with SVE.
RunTiles sve_dot_4;
// Panels of 12 columns; step 8: for CPUs with i8mm.
RunTiles neon_mmla_2, neon_mmla_4;
// Panels of 12 columns; step 4: for CPUs with dot product instructions.
RunTiles neon_dot_1, neon_dot_2, neon_dot_4;

} // namespace acl_qlinear
