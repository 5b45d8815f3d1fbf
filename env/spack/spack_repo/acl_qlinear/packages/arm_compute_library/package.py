# SPDX-License-Identifier: MIT
# Written by ci/spack-easybuild.sh from recipe/variants.yaml.
from spack_repo.builtin.build_systems.generic import Package

from spack.package import *


class ArmComputeLibrary(Package):
    """Arm Compute Library as a shared library: own symbols only, no OpenMP runtime.

    Spack's armcomputelibrary has other options and exports other symbols; this one goes with
    py-acl-qlinear.
    """

    homepage = "https://github.com/ARM-software/ComputeLibrary"
    license("MIT AND Apache-2.0")

    version(
        "52.3.0",
        url="https://github.com/ARM-software/ComputeLibrary/archive/refs/tags/v52.3.0.tar.gz",
        sha256="f0952be369793d7f48229c4be5011e5a8e20101febbad8a8c15e7a1c0577c0c4",
    )

    variant(
        "operators",
        default="qlinear",
        values=("qlinear", "full"),
        multi=False,
        description="How much of ACL",
    )

    requires("target=armv8.2a:", msg="it is built for Armv8.2-A and newer: target=armv8.2a")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("scons", type="build")
    depends_on("python@3:", type="build")

    @property
    def microarchitecture(self):
        """build_acl.sh's name for the target."""
        builds = {
            "neoverse-v1": ("neoverse_v1", "neoverse_v2", "neoverse_n2"),
        }
        for name, targets in builds.items():
            if any(self.spec.satisfies(f"target={target}:") for target in targets):
                return name
        return "armv8.2-a"

    @property
    def libs(self):
        return find_libraries("libarm_compute", root=self.prefix.lib, shared=True)

    @property
    def headers(self):
        headers = find_headers("*", root=self.prefix.include, recursive=True)
        headers.directories = [join_path(self.prefix.include, "arm-compute-library")]
        return headers

    def install(self, spec, prefix):
        build = Executable(join_path(self.package_dir, "build_acl.sh"))
        arguments = {
            "--variant": self.microarchitecture,
            "--operators": spec.variants["operators"].value,
            "--source": self.stage.source_path,
            "--prefix": prefix,
            "--jobs": str(make_jobs),
        }
        build(*[word for pair in arguments.items() for word in pair])
