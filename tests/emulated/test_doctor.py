# SPDX-License-Identifier: MIT
"""acl-qlinear doctor, in environments that are well and in ones that are not."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.pins import SITE_PACKAGES
from aclpkg.base.processes import run
from aclpkg.inputs import emulator

from ..conftest import TORCHES
from ..emulation import write_python

Installed = Callable[[str, str], Path]


def doctor(home: Path, work: Path, cpu: str, *arguments: str, **variables: str) -> tuple[int, dict[str, str], str]:
    """Status, what is said of each cause, and all that bin/acl-qlinear of a prefix prints."""
    # The prefix's own Python cannot start a program for AArch64 elsewhere: a copy of the command finds one that can.
    shutil.copy(home / "bin/acl-qlinear", work / "acl-qlinear")
    write_python(work / "python", cpu)
    done = subprocess.run(
        ["sh", work / "acl-qlinear", *(arguments or ("doctor",))],
        env={"PATH": "/usr/bin:/bin", "HOME": "/", "CONDA_PREFIX": str(home), **variables},
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout, done.stderr)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "problem ", "unknown "))]
    causes = {line[9:27].strip(): f"{line[:8].strip()}: {line[27:].strip()}" for line in lines}
    return done.returncode, causes, done.stdout + done.stderr


def test_all_is_well(installed: Installed, tmp_path: Path) -> None:
    home = installed("armv8_2a", TORCHES[-1])
    assert os.access(home / "bin/acl-qlinear", os.X_OK)
    status, causes, printed = doctor(home, tmp_path, "neoverse-v1", OMP_NUM_THREADS="1")
    assert status == 0 and printed.startswith("acl-qlinear 0.2.0 (built for armv8.2-a, ACL 24.11, PyTorch 2.9)")
    assert list(causes) == ["microarchitecture", "PyTorch", "glibc", "import", "OpenMP", "speed"]
    assert all(text.startswith("ok: ") for text in causes.values()), causes
    assert "so it can the neoverse_v1 build" in causes["microarchitecture"]
    assert "kernel sve_" in causes["import"] and "libgomp" in causes["OpenMP"]
    assert "acl_qlinear.report(model)" in printed


@pytest.mark.skipif(emulator.NATIVE, reason="needs an emulated CPU that lacks instructions")
def test_wrong_microarchitecture(installed: Installed, tmp_path: Path) -> None:
    status, causes, printed = doctor(installed("neoverse_v1", TORCHES[-1]), tmp_path, "neoverse-n1")
    assert status == 1 and '→ conda install "acl-qlinear=*=*armv8_2a*"' in printed
    assert causes["microarchitecture"].startswith("problem: built for neoverse-v1, and this CPU lacks jscvt")
    assert causes["import"].startswith("problem: this acl_qlinear was built for neoverse-v1, and this CPU lacks")
    assert causes["OpenMP"].startswith("ok: one runtime") and causes["speed"].startswith("unknown: ")


def test_everything_else_that_can_be_wrong(installed: Installed, tmp_path: Path) -> None:
    """Another PyTorch, packages for a newer glibc, a second OpenMP runtime, more threads than CPUs."""
    home = installed("armv8_2a", TORCHES[-1])
    other = tmp_path / "path/torch-2.5.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.5.1\n")
    (runtime,) = home.glob(f"{SITE_PACKAGES}/torch.libs/libgomp-*.so*")
    second = shutil.copy(runtime, tmp_path / "libomp.so")
    run(["patchelf", "--set-soname", "libomp.so", second])
    record = home / "conda-meta/from-the-future-1-0.json"
    record.write_text(json.dumps({"name": "from-the-future", "depends": ["__glibc >=9.9,<10"]}))
    try:
        status, causes, printed = doctor(
            home,
            tmp_path,
            "neoverse-n1",
            "doctor",
            "--import",
            "json",
            PYTHONPATH=str(other.parent),
            QEMU_SET_ENV=f"LD_PRELOAD={second},OMP_NUM_THREADS=512",
        )
    finally:
        record.unlink()
    assert status == 1
    assert causes["PyTorch"] == "problem: built for PyTorch 2.9, and PyTorch 2.5.1 is installed"
    assert '→ conda install acl-qlinear "pytorch=2.5"' in printed
    assert causes["glibc"].startswith("problem: 2.36, and from-the-future needs 9.9")
    assert causes["OpenMP"].startswith("problem: 2 runtimes in one process: ") and str(second) in causes["OpenMP"]
    assert causes["speed"].startswith("problem: 512 thread(s) on ") and "export OMP_NUM_THREADS=" in printed


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["cure"], 2)])
def test_usage(installed: Installed, tmp_path: Path, arguments: list[str], status: int) -> None:
    code, _, printed = doctor(installed("armv8_2a", TORCHES[-1]), tmp_path, "neoverse-n1", *arguments)
    assert code == status and "Usage: acl-qlinear doctor" in printed
