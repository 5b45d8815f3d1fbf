# SPDX-License-Identifier: MIT
# Written by ci/spack-easybuild.sh from recipe/variants.yaml.
import os

from spack_repo.builtin.build_systems.generic import Package

from spack.package import *


class ArmComputeLibrary(Package):
    """Arm Compute Library as a shared library: own symbols only, no OpenMP runtime, one scons build."""

    homepage = "https://github.com/ARM-software/ComputeLibrary"
    # A checkout of acl-qlinear, whose build_acl.sh builds: give its folder with
    # `spack develop --path CHECKOUT arm-compute-library@24.11`.
    git = "file:///path/to/acl-qlinear"
    license("MIT AND Apache-2.0")

    version("24.11", branch="main")
    resource(
        name="acl-source",
        url="file:///path/to/arm-compute-library_24.11+dfsg.orig.tar.xz",
        sha256="cebdf5dfe8b35007a84e3dfb6794ffe07064d9297bffeb5df0765437bf69c556",
        expand=False,
        placement={"arm-compute-library_24.11+dfsg.orig.tar.xz": "acl.tar"},
    )

    variant("operators", default="qlinear", values=("qlinear", "full"), description="How much of ACL")
    variant(
        "microarchitecture",
        default="armv8.2-a",
        values=("armv8.2-a", "neoverse-v1"),
        description="Armv8.2-A picks kernels at run time; Neoverse V1 has SVE and i8mm compiled in",
    )
    requires("target=armv8.2a:", when="microarchitecture=armv8.2-a")
    requires("target=neoverse_v1:", "target=neoverse_v2:", "target=neoverse_v3ae:", "target=neoverse_n2:", "target=olympus:", policy="any_of", when="microarchitecture=neoverse-v1")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("scons", type="build")
    depends_on("python@3:", type="build")

    def install(self, spec, prefix):
        build = Executable(os.path.join(self.stage.source_path, "build_acl.sh"))
        build(
            "--variant", spec.variants["microarchitecture"].value,
            "--operators", spec.variants["operators"].value,
            "--source", os.path.join(self.stage.source_path, "acl.tar"),
            "--prefix", prefix,
            "--jobs", str(make_jobs),
        )  # fmt: skip
