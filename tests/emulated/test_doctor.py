# SPDX-License-Identifier: MIT
"""acl-qlinear doctor, in environments that are well and in ones that are not; both programs, however Python runs."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import SITE_PACKAGES
from aclpkg.base.processes import run
from aclpkg.build import bytecode
from aclpkg.inputs import emulator

from ..conftest import ACL_VERSION, TORCH
from ..emulation import write_python

Installed = Callable[[str, str], Path]
Words = Sequence[str | Path]
CPU_FILE = ROOT / "src/acl_qlinear/_cpu.py"
# Python without docstrings and asserts, and one whose terminal, files and file names are ASCII.
PYTHONS = {
    "-OO": {"PYTHONOPTIMIZE": "2"},
    "ASCII": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
}


def doctor(
    home: Path, work: Path, cpu: str, *arguments: str, before: Words = (), **variables: str
) -> tuple[int, dict[str, str], str]:
    """Status, what is said of each cause, and all that bin/acl-qlinear of a prefix prints.

    before: The words before the command that starts it.
    """
    # The prefix's own Python cannot start a program for AArch64 elsewhere: a copy of the command finds one that can.
    shutil.copy(home / "bin/acl-qlinear", work / "acl-qlinear")
    write_python(work / "python", cpu)
    done = subprocess.run(
        [*before, "sh", work / "acl-qlinear", *(arguments or ("doctor",))],
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
    home = installed("armv8_2a", TORCH)
    assert os.access(home / "bin/acl-qlinear", os.X_OK)
    status, causes, printed = doctor(home, tmp_path, "neoverse-v1", OMP_NUM_THREADS="1")
    first = f"acl-qlinear 0.2.0 (built for armv8.2-a, ACL {ACL_VERSION}, PyTorch {TORCH})"
    assert status == 0 and printed.startswith(first)
    assert list(causes) == ["microarchitecture", "PyTorch", "glibc", "import", "OpenMP", "speed"]
    assert all(text.startswith("ok: ") for text in causes.values()), causes
    assert "so it can the neoverse_v1 build" in causes["microarchitecture"]
    assert "kernel sve_" in causes["import"] and "libgomp" in causes["OpenMP"]
    assert "acl_qlinear.report(model)" in printed


@pytest.mark.skipif(emulator.NATIVE, reason="needs an emulated CPU that lacks instructions")
def test_wrong_microarchitecture(installed: Installed, tmp_path: Path) -> None:
    status, causes, printed = doctor(installed("neoverse_v1", TORCH), tmp_path, "neoverse-n1")
    assert status == 1 and '→ conda install "acl-qlinear=*=*armv8_2a*"' in printed
    assert causes["microarchitecture"].startswith("problem: built for neoverse-v1, and this CPU lacks jscvt")
    assert causes["import"].startswith("problem: this acl_qlinear was built for neoverse-v1, and this CPU lacks")
    assert causes["OpenMP"].startswith("ok: one runtime") and causes["speed"].startswith("unknown: ")


def test_everything_else_that_can_be_wrong(installed: Installed, tmp_path: Path) -> None:
    """Another PyTorch, packages for a newer glibc, a second OpenMP runtime, more threads than CPUs."""
    home = installed("armv8_2a", TORCH)
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
    code, _, printed = doctor(installed("armv8_2a", TORCH), tmp_path, "neoverse-n1", *arguments)
    assert code == status and "Usage: acl-qlinear doctor" in printed


@pytest.fixture(scope="module")
def compiled(installed: Installed, upstream: list[str]) -> None:
    """The prefix of these tests has bytecode for -OO: an emulated CPU takes a minute for what `import torch` needs."""
    bytecode.compile_files(installed("armv8_2a", TORCH), upstream, optimize=2)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("variables", PYTHONS.values(), ids=PYTHONS)
def test_doctor_however_python_runs(installed: Installed, tmp_path: Path, variables: dict[str, str]) -> None:
    home = installed("armv8_2a", TORCH)
    status, causes, printed = doctor(home, tmp_path, "neoverse-v1", OMP_NUM_THREADS="512", **variables)
    assert status == 1 and len(causes) == 6 and causes["speed"].startswith("problem: 512 thread(s) on ")
    arrow = "→" if "PYTHONOPTIMIZE" in variables else "->"
    assert f"{arrow} where that is not meant: export OMP_NUM_THREADS=" in printed
    status, _, printed = doctor(home, tmp_path, "neoverse-v1", "doctor", "--help", **variables)
    assert status == 0 and "what is wrong with this environment" in printed and "--import MODULE" in printed


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("variables", PYTHONS.values(), ids=PYTHONS)
def test_bench_however_python_runs(
    installed: Installed, run_in: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path,
    variables: dict[str, str],
) -> None:  # fmt: skip
    """Its help, and a table with all that is not ASCII."""
    report = tmp_path / "report.json"
    versions = {"acl_qlinear": "0.2.0", "microarchitecture": "armv8.2-a", "torch": "2.9.1"}
    cost = {"seconds": 2e-6, "alone": 1e-6}
    cases = [{"shape": [512, 768, 768], "kind": "u8 tensor", "acl": [cost], "threads": [1]}]
    part = {"versions": versions, "preset": "threads", "measure": "seconds", "threads": 1, "cpu": "neoverse-n1"}
    report.write_text(json.dumps({**part, "node": "n", "part": [1, 1], "cases": cases}))
    for options, expected in (
        (["--help"], ["usage: python -m acl_qlinear.bench", "--compare A.json B.json"]),
        (["--merge", str(report)], ["512×768×768", "–", "µs"]),
    ):
        program = ["python", "-m", "acl_qlinear.bench", *options]
        done = run_in(installed("armv8_2a", TORCH), program, emulator.CPUS["armv8_2a"][0], **variables)
        print(done.stdout, done.stderr)
        assert done.returncode == 0
        for text in expected:
            plain = text.replace("×", "x").replace("–", "-").replace("µ", "u")
            assert (text if "PYTHONOPTIMIZE" in variables else plain) in done.stdout


V1 = "31 23 0:28 {top} /sys/fs/cgroup/{at} rw shared:9 - cgroup cgroup rw,{options}\n"
V2 = "31 23 0:28 {top} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
# /proc/self/cgroup, /proc/self/mountinfo, files in /sys/fs/cgroup, and the CPUs of 64 that are left.
CGROUPS = {
    "v2": ("0::/a/b\n", V2.format(top="/"), {"a/b/cpu.max": "150000 100000\n"}, 2),
    "v2, of a parent": ("0::/a/b\n", V2.format(top="/"), {"a/b/cpu.max": "max 1000\n", "a/cpu.max": "4000 1000\n"}, 4),
    "v2, the least": ("0::/a/b\n", V2.format(top="/"), {"a/b/cpu.max": "9000 1000\n", "a/cpu.max": "3000 1000\n"}, 3),
    "v2, none": ("0::/a\n", V2.format(top="/"), {"a/cpu.max": "max 100000\n"}, 64),
    "v2, no controller": ("0::/a\n", V2.format(top="/"), {"a/cgroup.procs": ""}, 64),
    "v2, more than there are": ("0::/a\n", V2.format(top="/"), {"a/cpu.max": "9900000 100000\n"}, 64),
    "v2, part of a CPU": ("0::/a\n", V2.format(top="/"), {"a/cpu.max": "5000 100000\n"}, 1),
    "v2, a container": ("0::/\n", V2.format(top="/"), {"cpu.max": "200000 100000\n"}, 2),
    "v2, a container that is mounted alone": (
        "0::/docker/1\n", V2.format(top="/docker/1"), {"cpu.max": "200000 100000\n"}, 2,
    ),
    "v2, moved out of its namespace": ("0::/../b\n", V2.format(top="/"), {"cpu.max": "200000 100000\n"}, 2),
    "v1": (
        "4:memory:/m\n3:cpu,cpuacct:/a/b\n1:name=systemd:/s\n0::/s\n",
        V1.format(top="/", at="memory", options="memory") + V1.format(top="/", at="cpu,cpuacct", options="cpu,cpuacct"),
        {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n"}, 3,
    ),
    "v1, none": (
        "3:cpu:/a\n", V1.format(top="/", at="cpu", options="cpu"),
        {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 64,
    ),
    "v1, a container": (
        "3:cpu:/docker/1\n", V1.format(top="/docker/1", at="cpu", options="cpu"),
        {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2,
    ),
    "v1, a cpuset is not a cpu": (
        "3:cpuset:/\n", V1.format(top="/", at="cpuset", options="cpuset"),
        {"cpuset/cpu.cfs_quota_us": "200000\n", "cpuset/cpu.cfs_period_us": "100000\n"}, 64,
    ),
    "both": (
        "3:cpu:/a\n0::/s\n", V1.format(top="/", at="cpu", options="cpu") + V2.format(top="/"),
        {"cpu/a/cpu.cfs_quota_us": "500000\n", "cpu/a/cpu.cfs_period_us": "100000\n", "s/cgroup.procs": ""}, 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CGROUPS)
def test_quotas_of_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    cgroup, mounts, files, expected = CGROUPS[name]
    tree = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": f"23 1 8:1 / / rw - ext4 /dev/root rw\n{mounts}"}
    for path, text in {**tree, **{f"sys/fs/cgroup/{path}": text for path, text in files.items()}}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert runpy.run_path(str(CPU_FILE))["usable_cpus"](tmp_path) == expected


def test_usable_cpus_of_a_system_without_cgroups(tmp_path: Path) -> None:
    assert runpy.run_path(str(CPU_FILE))["usable_cpus"](tmp_path) == len(os.sched_getaffinity(0))


@pytest.fixture
def on_one_cpu() -> Iterator[Words]:
    """The words before a command that runs it in a cgroup of this machine, whose quota is one CPU; either version."""
    for parent, quota in (("", "cpu.max"), ("cpu", "cpu.cfs_quota_us")):
        group = Path("/sys/fs/cgroup", parent, f"acl-qlinear-{os.getpid()}")
        try:
            group.mkdir()
        except OSError as error:
            reason = str(error)
            continue
        try:
            if (group / quota).exists():
                (group / quota).write_text("100000")
                yield "sh", "-c", 'echo $$ > "$0" && exec "$@"', group / "cgroup.procs"
                return
            reason = f"{group} has no {quota}"
        finally:
            group.rmdir()
    pytest.skip(f"no cgroup with a quota can be made here: {reason}")


def test_quota_of_a_real_cgroup(installed: Installed, tmp_path: Path, on_one_cpu: Words) -> None:
    program = f"import runpy; print(runpy.run_path({str(CPU_FILE)!r})['usable_cpus']())"
    assert run([*on_one_cpu, sys.executable, "-c", program]) == "1\n"
    home = installed("armv8_2a", TORCH)
    _, causes, printed = doctor(home, tmp_path, "neoverse-v1", before=on_one_cpu, OMP_NUM_THREADS="512")
    assert causes["speed"].startswith("problem: 512 thread(s) on 1 CPU(s), by OMP_NUM_THREADS=512")
    allowed = len(os.sched_getaffinity(0))
    assert allowed == 1 or f"; a cgroup's quota leaves 1 of {allowed} CPUs" in causes["speed"]
    assert "export OMP_NUM_THREADS=1," in printed
