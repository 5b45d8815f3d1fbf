# SPDX-License-Identifier: MIT
proc ModulesHelp {} {
    puts stderr {acl-qlinear: int8 linear layers for PyTorch on AArch64, on Arm Compute Library.
Brings Python, PyTorch and acl_qlinear in a conda prefix of its own, for this node's CPU.

  python -c 'import acl_qlinear'     acl-qlinear doctor     python -m acl_qlinear.bench

ACL_QLINEAR_MICROARCHITECTURE=armv8_2a (or neoverse_v1), set before loading, picks the build.}
}
module-whatis "Name: $name"
module-whatis "Version: $version"
module-whatis "Category: machine learning"
module-whatis "Description: int8 linear layers for PyTorch on AArch64, on Arm Compute Library"
conflict acl-qlinear arm-compute-library
prepend-path PATH $root/bin
pushenv CONDA_PREFIX $root
pushenv $rootVariable $root
