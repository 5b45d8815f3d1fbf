# SPDX-License-Identifier: MIT
"""env/reframe and ci/sweep.sh on a real Slurm, whose nodes run modules and Python on emulated CPUs."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import TORCH
from aclpkg.inputs import emulator
from aclpkg.measure import bench

from ..conftest import wait_for
from .conftest import slurm_answers

# So few that it is quick.
SHAPES = ["--shape", "1x64x64", "--shape", "8x768x768"]


@pytest.fixture(scope="module")
def reframe(environment: dict[str, str], slurm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """reframe(status, option…): what ReFrame prints, after checking its status."""

    def call(status: int, *options: str, site: str = "tests/cluster/site.py", **variables: str) -> str:
        work = tmp_path_factory.mktemp("reframe")
        words = [
            "reframe",
            "-C",
            ROOT / site,
            "-c",
            ROOT / "env/reframe/acl_qlinear_checks.py",
            "--prefix",
            work,
            "--keep-stage-files",
            *options,
        ]
        words, env = list(map(str, words)), {**environment, **variables}
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=env, cwd=work)
        print(done.stdout[-6000:], done.stderr[-2000:])
        assert done.returncode == status, re.findall(r"Reason: .*", done.stdout)
        return done.stdout + f"\nFILES {work}"

    return call


def references(target: Path, costs: dict[str, float]) -> str:
    target.write_text(json.dumps({"cluster:arm": {"tolerance": 0.03, "costs": costs}}))
    return f"Speed.references={target}"


def kept_costs() -> dict[str, float]:
    """What the cases of smoke cost in tests/cost_baseline.json."""
    return json.loads(bench.BASELINE.read_text())[bench.build_name("neoverse_v1", TORCH)]


def costs_of_shapes() -> dict[str, float]:
    """The same of SHAPES."""
    return {name: cost for name, cost in kept_costs().items() if name.startswith(("1×64×64 ", "8×768×768 "))}


@pytest.fixture(scope="module")
def measured(reframe: Callable[..., str], slurm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Correctness and Speed on the cluster, against tests/cost_baseline.json; the report that Speed's task wrote."""
    costs = costs_of_shapes()
    file = tmp_path_factory.mktemp("references") / "references.json"
    options = [
        "-r",
        "-n",
        "Correctness|Speed",
        "-S",
        f"Speed.bench_options={','.join(['--counters', 'counts.txt', *SHAPES])}",
        "-S",
        references(file, costs),
    ]
    printed = reframe(0, *options)
    assert "[  PASSED  ] Ran 2/2 test case(s) from 2 check(s)" in printed
    work = Path(printed.rsplit("FILES ", 1)[1])
    (report,) = work.glob("stage/**/report-0.json")
    return report


@pytest.mark.skipif(emulator.NATIVE, reason="references are of an emulated CPU")
def test_correctness_and_speed(measured: Path) -> None:
    report = json.loads(measured.read_text())
    assert report["node"].startswith("arm") and report["cpu"] == "neoverse-v1"
    assert len(report["cases"]) == len(costs_of_shapes()) > 0


@pytest.mark.skipif(emulator.NATIVE, reason="references are of an emulated CPU")
@pytest.mark.parametrize("fault", ["slower", "no reference", "no line", "no report", "exit status", "unknown system"])
def test_what_must_fail_fails(reframe: Callable[..., str], measured: Path, tmp_path: Path, fault: str) -> None:
    """The report that was measured, with a fault: a payload that is quick."""
    report = json.loads(measured.read_text())
    name = "1×64×64 u8 tensor"
    costs = bench.case_costs(report)
    if fault == "slower":
        costs[name] *= 0.9
    if fault == "no reference":
        del costs[name]
    if fault == "no line":
        report["cases"] = report["cases"][1:]
    (tmp_path / "report.json").write_text(json.dumps(report))
    program = tmp_path / "program"
    copy = "" if fault == "no report" else f'for last; do :; done; cp {tmp_path}/report.json "$last"'
    program.write_text(f"#!/bin/bash\n{copy}\nexit {3 if fault == 'exit status' else 0}\n")
    program.chmod(0o755)
    option = references(tmp_path / "references.json", costs)
    if fault == "unknown system":
        (tmp_path / "references.json").write_text("{}")
    printed = reframe(1, "-r", "-n", "Speed", "-S", f"program={program}", "-S", option)
    expected = {
        "slower": "failed to meet reference",
        "no reference": "reference",
        "no line": f"a report has no line for {name}",
        "no report": "report-0.json is missing",
        "exit status": "the benchmark failed",
        "unknown system": "has no cluster:arm; measured was: {",
    }[fault]
    assert expected in printed


def test_one_task_per_numa_node(reframe: Callable[..., str]) -> None:
    """The job script for nodes with four: this machine's have one."""
    printed = reframe(0, "--dry-run", "-n", "Correctness", NUMA_NODES="4")
    (script,) = Path(printed.rsplit("FILES ", 1)[1]).glob("stage/**/rfm_job.sh")
    text = script.read_text()
    for line in ("--ntasks=4", "--ntasks-per-node=4", "--cpus-per-task=1", "--partition=arm", "--no-requeue"):
        assert f"#SBATCH {line}\n" in text
    assert "module load acl-qlinear\n" in text and "srun --cpus-per-task=1 --cpu-bind=ldoms bash -c" in text


@pytest.mark.skipif(emulator.NATIVE, reason="the environment's programs run on emulated CPUs")
def test_single_machine(reframe: Callable[..., str], environment: dict[str, str], slurm: Path, deployed: Path) -> None:
    home = next(deployed.glob("software/neoverse_v1/acl-qlinear/*"))
    path = f"{slurm}/programs:{environment['PATH']}"
    printed = reframe(
        0, "-r", "-n", "Correctness", site="env/reframe/sites/single.py", PATH=path, CONDA_PREFIX=str(home)
    )
    assert "[  PASSED  ] Ran 1/1 test case(s) from 1 check(s)" in printed and "@single:here" in printed


@pytest.mark.skipif(emulator.NATIVE, reason="the sweep's payload runs on emulated CPUs")
def test_sweep_with_a_node_that_dies(environment: dict[str, str], slurm: Path, tmp_path: Path) -> None:
    output, parts, before = tmp_path / "output", 4, submitted(slurm)
    running = subprocess.Popen(
        [
            "bash",
            str(ROOT / "ci/sweep.sh"),
            "--site",
            str(ROOT / "tests/cluster/site.py"),
            "--parts",
            str(parts),
            "--output",
            str(output),
            "--preset",
            "smoke",
            "-S",
            "Sweep.bench_options=--counters,counts.txt,--largest-m,8",
        ],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # In the middle: a task of the second node's has started to measure.
    wait_for(lambda: bool(jobs_on(slurm, "arm2")) and any(output.glob("reframe/stage/**/counts.txt")), 300)
    lost = jobs_on(slurm, "arm2")
    kill_node(slurm, "arm2")
    printed, _ = running.communicate(timeout=900)
    print(printed[-6000:])
    assert running.returncode == 0
    assert "Ran 4/4 test case(s)" in printed and "retry" in printed.lower()
    merged = json.loads((output / "sweep.json").read_text())
    names = {name for name in kept_costs() if not name.startswith("128×")}
    assert bench.case_costs(merged).keys() == names and len(merged["cases"]) == len(names)
    assert all(case["max_error"] <= 1 for case in merged["cases"])
    assert set(merged["nodes"]) == {f"{part}/{parts}" for part in range(1, parts + 1)}
    assert (output / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    # One job for each part, one more for the lost one, and one that put them together.
    assert len(lost) == 1 and submitted(slurm) - before == parts + 2


def submitted(home: Path) -> int:
    """How many jobs there have been."""
    return (home / "slurmctld.log").read_text().count("_slurm_rpc_submit_batch_job: JobId=")


def jobs_on(home: Path, node: str) -> list[str]:
    return slurm_answers(home, "squeue", "-h", "-w", node, "-t", "running", "-o", "%i").split()


def kill_node(home: Path, node: str) -> None:
    """Ends slurmd and everything that it started, at once, as when the power goes."""
    pid = int((home / f"{node}.pid").read_text())
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes()
        except (OSError, PermissionError):
            continue
        if f"SLURMD_NODENAME={node}\0".encode() in text:
            os.kill(int(process.name), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"slurmstepd" in words[0] and f"spool-{node}".encode() in b"".join(words):
            os.kill(int(process.parent.name), signal.SIGKILL)
