# SPDX-License-Identifier: MIT
"""The engine's reads and writes stay within what they are given."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.processes import run
from aclpkg.inputs import emulator

from ..conftest import TORCHES

Run = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[[str, str], Path]


@pytest.mark.parametrize("cpu", emulator.CPUS["armv8_2a"])
def test_memory_errors(installed: Installed, run_in: Run, compiler: Path, tmp_path: Path, cpu: str) -> None:
    """The engine under AddressSanitizer, and its inputs and outputs between pages of no access."""
    home = installed("armv8_2a", TORCHES[-1])
    config = (home / "lib/cmake/ArmComputeLibrary/ArmComputeLibraryConfig.cmake").read_text()
    march = re.findall(r"TARGET_OPTIONS (\S+)\)", config)[0]
    program = home / "bin/engine_memory"
    engine = ROOT / "src/csrc/engine"
    run(
        [
            compiler / "bin/aarch64-conda-linux-gnu-g++",
            f"--sysroot={compiler}/aarch64-conda-linux-gnu/sysroot",
            march,
            "-std=c++17",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsanitize=address",
            "-static-libasan",
            f"-I{engine}",
            f"-I{home}/include/arm-compute-library",
            ROOT / "tests/engine_memory.cpp",
            *sorted(engine.glob("*.cpp")),
            "-o",
            program,
            f"-L{home}/lib",
            "-larm_compute",
            f"-Wl,-rpath,{home}/lib",
            "-Wl,--allow-shlib-undefined",
        ]
    )
    # Leaks are looked for with ptrace, which the emulator does not have.
    done = run_in(home, [program.name], cpu, LD_LIBRARY_PATH=f"{home}/lib", ASAN_OPTIONS="detect_leaks=0")
    program.unlink()
    print(done.stdout, done.stderr[-3000:])
    assert done.returncode == 0 and "12 shapes, 0 failures" in done.stdout
    families = {"neoverse-n1": 2, "neoverse-v1": 5}[cpu]
    assert emulator.NATIVE or f"{families} families of kernels, 0 failures" in done.stdout
