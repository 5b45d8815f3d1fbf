# SPDX-License-Identifier: MIT
"""Which build a client installs, by the CPU that it reports."""

import json
import shutil
from pathlib import Path

import pytest
from aclpkg.base import archives, environment
from aclpkg.base.pins import MICROARCHITECTURES, VARIANTS
from rattler import Version
from rattler.exceptions import SolverError

from ..conftest import BUILD_TAGS

V1_NAMES = MICROARCHITECTURES["neoverse_v1"].cpus
OTHER_NAMES = ["neoverse_n1", "a64fx", "cortex_a72", "thunderx2", "ampere1", "m1", "aarch64", "never_heard_of_it", None]


def builds(channels: list[str], *specs: str, cpu: str | None, glibc: str = "2.36") -> dict[str, str]:
    return {r.name.normalized: str(r.build) for r in environment.resolve(channels, list(specs), cpu, glibc)}


@pytest.mark.parametrize("torch", BUILD_TAGS)
@pytest.mark.parametrize(
    ("cpu", "expected"), [(n, "neoverse_v1") for n in V1_NAMES] + [(n, "armv8_2a") for n in OTHER_NAMES]
)
def test_cpu_decides(channels: list[str], cpu: str | None, expected: str, torch: str) -> None:
    found = builds(channels, "acl-qlinear", f"pytorch {torch}.*", cpu=cpu)
    assert found["acl-qlinear"].startswith(f"{BUILD_TAGS[torch]}_{expected}_")
    assert found["arm-compute-library"].startswith(f"{expected}_")


@pytest.mark.parametrize("cpu", ["neoverse_v1", "neoverse_n1"])
def test_build_string_decides_when_asked(channels: list[str], cpu: str) -> None:
    found = builds(channels, "acl-qlinear * *armv8_2a*", cpu=cpu)
    assert found["arm-compute-library"].startswith("armv8_2a_")


def test_build_for_neoverse_v1_is_refused_elsewhere(channels: list[str]) -> None:
    with pytest.raises(SolverError, match="__archspec"):
        builds(channels, "acl-qlinear * *neoverse_v1*", cpu="neoverse_n1")


def test_build_string_says_how_much_of_acl(channels: list[str]) -> None:
    found = builds(channels, "arm-compute-library * *_qlinear_*", cpu="neoverse_v1")
    assert found["arm-compute-library"].startswith("neoverse_v1_qlinear_")


def test_acl_is_the_one_it_was_built_with(channels: list[str]) -> None:
    for record in environment.resolve(channels, ["acl-qlinear"], "neoverse_v1"):
        if record.name.normalized == "acl-qlinear":
            assert f"arm-compute-library =={VARIANTS['acl_version'][0]} neoverse_v1_*" in record.depends, record.depends


def test_old_c_library_is_refused_with_a_reason(channels: list[str]) -> None:
    found = environment.resolve(channels, ["arm-compute-library"], None)
    (ours,) = [record for record in found if record.name.normalized == "arm-compute-library"]
    (needed,) = [depend for depend in ours.depends if depend.startswith("__glibc")]
    assert Version(needed.removeprefix("__glibc >=")) <= Version(VARIANTS["glibc_floor"][0])
    with pytest.raises(SolverError, match=r"__glibc >=2\.\d+"):
        builds(channels, "arm-compute-library", cpu=None, glibc="2.5")


@pytest.mark.parametrize(("name", "too_old"), [("python", "2.30"), ("pytorch", "2.17"), ("libstdcxx", "2.30")])
def test_bootstrap_packages_say_which_c_library_they_need(upstream: list[str], name: str, too_old: str) -> None:
    if not upstream[0].startswith("file:"):
        pytest.skip("the channels are not the bootstrap channel")
    with pytest.raises(SolverError, match=r"__glibc >=2\.\d+"):
        environment.resolve(upstream, [name], None, glibc=too_old)


def test_bootstrap_noarch_packages_have_what_conda_pack_reads(upstream: list[str], tmp_path: Path) -> None:
    if not upstream[0].startswith("file:"):
        pytest.skip("the channels are not the bootstrap channel")
    packages = [file for file in Path(upstream[0].removeprefix("file://")).glob("noarch/*.conda")]
    for package in packages:
        tree = tmp_path / package.stem
        archives.unpack_package(package, tree)
        if json.loads((tree / "info/index.json").read_text()).get("noarch") == "python":
            assert json.loads((tree / "info/link.json").read_text())["noarch"] == {"type": "python"}
        shutil.rmtree(tree)
