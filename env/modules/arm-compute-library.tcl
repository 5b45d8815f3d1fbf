# SPDX-License-Identifier: MIT
proc ModulesHelp {} {
    puts stderr {Arm Compute Library, a shared library with headers, for this node's CPU. For compilers:

  cmake: find_package(ArmComputeLibrary)     c++ $(pkg-config --cflags --libs arm-compute-library)

LD_LIBRARY_PATH is left alone: link with -Wl,-rpath,$ARM_COMPUTE_LIBRARY_ROOT/lib.}
}
module-whatis "Name: $name"
module-whatis "Version: $version"
module-whatis "Category: library"
module-whatis "Description: Arm Compute Library, kernels for machine learning on Arm CPUs"
conflict acl-qlinear arm-compute-library
prepend-path CMAKE_PREFIX_PATH $root
prepend-path PKG_CONFIG_PATH $root/lib/pkgconfig
pushenv $rootVariable $root
