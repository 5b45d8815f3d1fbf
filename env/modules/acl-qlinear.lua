-- SPDX-License-Identifier: MIT
help([[
acl-qlinear: int8 linear layers for PyTorch on AArch64, on Arm Compute Library.
Brings Python, PyTorch and acl_qlinear in a conda prefix of its own, for this node's CPU.

  python -c 'import acl_qlinear'     acl-qlinear doctor     python -m acl_qlinear.bench

ACL_QLINEAR_MICROARCHITECTURE=armv8_2a (or neoverse_v1), set before loading, picks the build.
]])
whatis("Name: " .. name)
whatis("Version: " .. version)
whatis("Category: machine learning")
whatis("Description: int8 linear layers for PyTorch on AArch64, on Arm Compute Library")
family("arm_compute_library")
prepend_path("PATH", pathJoin(root, "bin"))
pushenv("CONDA_PREFIX", root)
pushenv(root_variable, root)
