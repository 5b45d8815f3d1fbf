# SPDX-License-Identifier: MIT
"""AOTInductor: examples/aot_inductor makes a package in Python, and runs it in C++ without Python."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import SITE_PACKAGES
from aclpkg.base.processes import run
from aclpkg.inputs import emulator

from ..conftest import MICROARCHITECTURES, TORCH

CPU = emulator.CPUS[MICROARCHITECTURES[-1]][0]
TOKENS = (2, 7, 33)
# Makes the package as a user does, and prints what the model gives in Python.
MAKE_AND_RUN = """
import sys
import torch
sys.path.insert(0, sys.argv.pop(1))
import aot_inductor
aot_inductor.main()
for tokens in map(int, "{}".split()):
    with torch.no_grad():
        print(*aot_inductor.make_model()(aot_inductor.example_input(tokens)).flatten().tolist())
"""


def test_package_runs_without_python(
    installed: Callable[[str, str], Path],
    run_in: Callable[..., subprocess.CompletedProcess[str]],
    cxx: Path,
    inductor: dict[str, str],
    tmp_path: Path,
) -> None:
    prefix, package, program = installed(MICROARCHITECTURES[-1], TORCH), tmp_path / "model.pt2", tmp_path / "run_model"
    script = MAKE_AND_RUN.format(" ".join(map(str, TOKENS)))
    done = run_in(
        prefix,
        ["python", "-c", script, ROOT / "examples", package],
        CPU,
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"),
        **inductor,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    library, *expected = done.stdout.splitlines()
    torch = prefix / SITE_PACKAGES / "torch"
    include = ["-isystem", torch / "include", "-isystem", torch / "include/torch/csrc/api/include"]
    # With RPATH, which serves what PyTorch's libraries need of the prefix, too.
    link = ["-L", torch / "lib", f"-Wl,-rpath,{torch}/lib:{prefix}/lib", "-Wl,--disable-new-dtags"]
    link.append("-Wl,--allow-shlib-undefined")
    source = ROOT / "examples/aot_inductor.cpp"
    run([cxx, "-std=c++17", "-Wall", *include, source, "-o", program, *link, "-ltorch", "-ltorch_cpu", "-lc10", "-ldl"])
    for tokens, line in zip(TOKENS, expected, strict=True):
        command = emulator.emulated([program, library, package, str(tokens)], CPU)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=emulator.activated(prefix, CPU), cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-2000:]
        values, wanted = [float(value) for value in done.stdout.split()], [float(value) for value in line.split()]
        assert len(values) == tokens * 64 and values == pytest.approx(wanted, rel=1e-2, abs=1e-2)
    done = subprocess.run(
        emulator.emulated([program, "/nowhere.so", package, "2"], CPU), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "/nowhere.so: cannot open shared object file" in done.stderr
