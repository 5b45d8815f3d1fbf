# SPDX-License-Identifier: MIT
# Written by ci/spack-easybuild.sh from recipe/variants.yaml.
from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class PyAclQlinear(PythonPackage):
    """int8 linear layers for PyTorch on AArch64, on Arm Compute Library."""

    # A checkout of acl-qlinear: spack develop --path CHECKOUT py-acl-qlinear@0.2.0
    git = "file:///path/to/acl-qlinear"
    license("MIT")
    build_directory = "src"

    version("0.2.0", branch="main")

    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-scikit-build-core@0.11:", type="build")
    depends_on("arm-compute-library@52.3.0")
    depends_on("py-torch@2.6.0:2.6,2.7.0:2.7,2.8.0:2.8,2.9.0:2.9,2.10.0:", type=("build", "link", "run"))
    depends_on("py-numpy", type="run")
    depends_on("py-rich@13:", type="run")

    def config_settings(self, spec, prefix):
        torch = join_path(self["py-torch"].cmake_prefix_paths[0], "Torch")
        return {"cmake.define.Torch_DIR": torch}
