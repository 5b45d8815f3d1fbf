# SPDX-License-Identifier: MIT
"""python -m acl_qlinear.bench: the recipe's commands, options, refusals, and both ways to measure."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml
from aclpkg.base.paths import ROOT
from aclpkg.inputs import emulator
from aclpkg.measure import bench

from ..conftest import TORCH, TORCHES, counted

Run = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[[str, str], Path]


def test_commands_of_the_recipe(installed: Installed, run_in: Run, tmp_path: Path) -> None:
    """rattler-build runs them on AArch64 only; speed is counted here."""
    recipe = yaml.safe_load((ROOT / "recipe/acl-qlinear/recipe.yaml").read_text())
    commands = [line for test in recipe["tests"] for line in test.get("script", [])]
    assert len(commands) == 2
    for command in commands:
        words = shlex.split(command)
        assert words.pop(0) == "python"
        counters = None
        if "--promised" in words and not emulator.NATIVE:
            counters = tmp_path / "counts"
            # test_promised_speed measures M = 128, in the PyTorch that is compared with.
            words += ["--counters", str(counters), "--largest-m", "8"]
        home = installed(bench.measured_here()[-1], TORCHES[0])
        done = run_in(home, ["python", *words], bench.CPU, counters)
        print(done.stdout, done.stderr[-2000:])
        assert done.returncode == 0


@counted
def test_broken_promise_is_said(installed: Installed, run_in: Run, tmp_path: Path) -> None:
    program = (
        "import sys; from acl_qlinear.bench import speed_limits as s; s._OF_TORCH[1, 64, 64]['tensor'] = 0.01\n"
        "from acl_qlinear.bench.__main__ import main; sys.exit(main())"
    )
    options = ["--promised", "--kind", "u8 tensor", "--largest-m", "1", "--counters", tmp_path / "counts"]
    home = installed("neoverse_v1", TORCH)
    done = run_in(home, ["python", "-c", program, *options], bench.CPU, tmp_path / "counts")
    assert done.returncode == 1
    assert "not as promised: 1×64×64 u8 tensor: of PyTorch: 0.1" in done.stderr and "at most 0.01" in done.stderr


@counted
def test_peers_cost_more(installed: Installed) -> None:
    """The other engines compute the same, within 1 LSB, and cost more."""
    home = installed("neoverse_v1", TORCH)
    kinds = ("u8 tensor", "s8 channel", "static channel", "dynamic channel")
    shapes = ("--shape=1x64x64", "--shape=8x96x768")
    report, printed = bench.run_bench(home, bench.CPU, "--peers", *shapes, *(f"--kind={kind}" for kind in kinds))
    print(printed)
    for case in report["cases"]:
        engines = {"onnxruntime", "openvino"} if case["kind"] == "static channel" else {"onnxruntime"}
        assert {key.removesuffix(" error") for key in case if key.endswith(" error")} == engines
        assert all(case[f"{engine} error"] <= (case["kind"][1] == "8") for engine in engines)
    kept = [one for one in report["promises"] if one["what"].endswith(("of onnxruntime", "of openvino"))]
    assert len(kept) == 10 and all(one["kept"] for one in kept), kept
    assert report["versions"].keys() >= {"onnxruntime", "openvino"} and "acl/least" in printed


@counted
def test_time_under_emulation_is_refused(installed: Installed, run_in: Run) -> None:
    done = run_in(installed("neoverse_v1", TORCH), ["python", "-m", "acl_qlinear.bench"], bench.CPU)
    assert done.returncode == 1 and "time under emulation says nothing" in done.stderr


BAD_OPTIONS = {
    "'8x768' is not a shape, expected MxKxN": ["--shape", "8x768"],
    "there is no directory missing": ["--json", "missing/report.json"],
    "--shape does not go with --preset memory": ["--preset", "memory", "--shape", "8x768x768"],
    "invalid choice: 'fp8'": ["--kind", "fp8"],
    "--peers does not go with --preset threads": ["--peers", "--preset", "threads"],
    "not installed: pip install onnxruntime onnx openvino": ["--peers"],
}


def test_bad_options_are_refused_before_measuring(installed: Installed, run_in: Run) -> None:
    program = (
        "import sys; from acl_qlinear.bench.__main__ import parse_arguments, plot\n"
        f"for options in {[*BAD_OPTIONS.values(), ['--png', 'picture.png']]}:\n"
        "    sys.argv[1:] = options\n"
        "    plot.is_possible = lambda: False\n"
        "    try:\n"
        "        parse_arguments()\n"
        "    except SystemExit as status:\n"
        "        print('status', status)\n"
    )
    home = installed("armv8_2a", TORCH)
    done = run_in(home, ["python", "-c", program], emulator.CPUS["armv8_2a"][0])
    assert done.stdout.split() == ["status", "2"] * (len(BAD_OPTIONS) + 1)
    for message in (*BAD_OPTIONS, "--png needs matplotlib: conda install matplotlib-base"):
        assert message in done.stderr


def test_clock(installed: Installed, run_in: Run, tmp_path: Path) -> None:
    """What AArch64 machines report; emulated, the seconds themselves say nothing."""
    program = (
        "import os, sys; os.environ.pop('QEMU_CPU', None)\n"
        "from acl_qlinear.bench.__main__ import main; sys.exit(main())"
    )
    file = tmp_path / "report.json"
    options = ["--shape", "1x64x64", "--kind", "u8 tensor", "--kind", "dynamic channel", "--json", file]
    home = installed("armv8_2a", TORCH)
    done = run_in(home, ["python", "-c", program, *options], emulator.CPUS["armv8_2a"][0])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "µs per call" in done.stdout and "floor" not in done.stdout
    report = json.loads(file.read_text())
    assert report["measure"] == "seconds" and len(report["pinned_to"]) == 1 and len(report["cases"]) == 2
    costs = [case[engine] for case in report["cases"] for engine in ("acl", "torch", "fp32")]
    assert all(0 < cost["seconds"] < 1 and cost["spread"] >= 0 for cost in costs)
