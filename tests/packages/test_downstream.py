# SPDX-License-Identifier: MIT
"""Somebody else's program, built from an installed prefix alone: by CMake, and by pkg-config."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base import environment
from aclpkg.base.paths import ROOT
from aclpkg.base.processes import run
from aclpkg.inputs import emulator

from ..conftest import ACL_VERSION, MICROARCHITECTURES

CONSUMER = ROOT / "tests/packages/consumer"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=MICROARCHITECTURES)
def installed_acl(request: pytest.FixtureRequest, channels: list[str], tmp_path: Path) -> tuple[Path, str]:
    """A prefix with arm-compute-library and nothing of ours besides, and a CPU for it."""
    cpu = emulator.CPUS[request.param][0]
    environment.create(tmp_path / "prefix", channels, ["arm-compute-library"], cpu.replace("-", "_"))
    (tmp_path / "prefix/bin").mkdir(exist_ok=True)
    return tmp_path / "prefix", cpu


@pytest.fixture(params=["CMake", "pkg-config"])
def gemm(
    request: pytest.FixtureRequest,
    installed_acl: tuple[Path, str],
    compiler: Path,
    tmp_path: Path,
    build_by_pkg_config: Callable[[Path, Path], Path],
) -> Path:
    """The program, in the prefix's bin/."""
    home, _ = installed_acl
    if request.param == "pkg-config":
        return build_by_pkg_config(CONSUMER / "gemm.cpp", home)
    settings = {
        "ACL_VERSION": ACL_VERSION,
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_SYSROOT": compiler / "aarch64-conda-linux-gnu/sysroot",
        "CMAKE_CXX_COMPILER": compiler / "bin/aarch64-conda-linux-gnu-g++",
        "CMAKE_PREFIX_PATH": home,
        "CMAKE_FIND_ROOT_PATH": home,
        "CMAKE_EXE_LINKER_FLAGS": "-Wl,--allow-shlib-undefined",
        "CMAKE_RUNTIME_OUTPUT_DIRECTORY": home / "bin",
    }
    work = tmp_path / "build"
    run(["cmake", "-G", "Ninja", "-S", CONSUMER, "-B", work, *(f"-D{key}={value}" for key, value in settings.items())])
    run(["cmake", "--build", work])
    return home / "bin/gemm"


def test_gemm(installed_acl: tuple[Path, str], gemm: Path, run_in: Run) -> None:
    home, cpu = installed_acl
    done = run_in(home, [gemm.name], cpu)
    assert done.returncode == 0 and done.stdout == "gemm: 0 of 133 elements wrong\n", done.stdout + done.stderr


def test_other_version_is_refused(channels: list[str], tmp_path: Path) -> None:
    """A CMake project that asks for another version is told so."""
    environment.create(tmp_path / "prefix", channels, ["arm-compute-library"], None)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(p NONE)\nfind_package(ArmComputeLibrary 99 CONFIG REQUIRED)\n"
    )
    words = ["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "b"), f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'compatible with requested version "99"' in " ".join(done.stderr.split())
