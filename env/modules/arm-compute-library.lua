-- SPDX-License-Identifier: MIT
help([[
Arm Compute Library, a shared library with headers, for this node's CPU. For compilers:

  cmake: find_package(ArmComputeLibrary)     c++ $(pkg-config --cflags --libs arm-compute-library)

LD_LIBRARY_PATH is left alone: link with -Wl,-rpath,$ARM_COMPUTE_LIBRARY_ROOT/lib.
]])
whatis("Name: " .. name)
whatis("Version: " .. version)
whatis("Category: library")
whatis("Description: Arm Compute Library, kernels for machine learning on Arm CPUs")
family("arm_compute_library")
prepend_path("CMAKE_PREFIX_PATH", root)
prepend_path("PKG_CONFIG_PATH", pathJoin(root, "lib/pkgconfig"))
pushenv(root_variable, root)
