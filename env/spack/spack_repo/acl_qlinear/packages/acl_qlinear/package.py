# SPDX-License-Identifier: MIT
# Written by ci/spack-easybuild.sh from recipe/variants.yaml.
from spack_repo.builtin.build_systems.python import PythonPackage

from spack.package import *


class AclQlinear(PythonPackage):
    """int8 linear layers for PyTorch on AArch64, on Arm Compute Library."""

    # A checkout of acl-qlinear: `spack develop --path CHECKOUT acl-qlinear@0.2.0`.
    git = "file:///path/to/acl-qlinear"
    license("MIT")
    build_directory = "src"

    version("0.2.0", branch="main")

    variant(
        "microarchitecture", default="armv8.2-a", values=("armv8.2-a", "neoverse-v1"), description="As arm-compute-library's"
    )
    for _variant in ("armv8.2-a", "neoverse-v1"):
        depends_on(
            f"arm-compute-library@24.11 microarchitecture={_variant}", when=f"microarchitecture={_variant}"
        )

    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    depends_on("ninja", type="build")
    depends_on("python@3.10:", type=("build", "run"))
    depends_on("py-scikit-build-core@0.11:", type="build")
    depends_on("py-torch@2.6.0:2.6,2.9.0:2.9", type=("build", "link", "run"))
    depends_on("py-numpy", type="run")
    depends_on("py-rich@13:", type="run")

    def setup_build_environment(self, env):
        env.append_flags("CMAKE_ARGS", f"-DCMAKE_PREFIX_PATH={self.spec['arm-compute-library'].prefix}")
        env.append_flags("LDFLAGS", f"-Wl,-rpath,{self.spec['arm-compute-library'].prefix.lib}")
