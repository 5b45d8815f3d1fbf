# SPDX-License-Identifier: MIT
"""What the packages promise of speed and memory, and that no case has become dearer."""

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import VARIANTS
from aclpkg.inputs import emulator
from aclpkg.measure import bench, hotspots

from ..conftest import MICROARCHITECTURES, TORCHES

# What a case may grow by before it is a regression.
GROWTH = 1.03
Run = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[[str, str], Path]
counted = pytest.mark.skipif(emulator.NATIVE, reason="counts are for emulation; ci/bench.sh measures time")


@pytest.fixture(scope="session")
def measured(installed: Installed) -> Callable[[str, str], bench.Report]:
    """measured(microarchitecture, preset): the report, whose promises are kept."""
    reports: dict[tuple[str, str], bench.Report] = {}

    def measure(microarchitecture: str, preset: str) -> bench.Report:
        if (microarchitecture, preset) not in reports:
            home = installed(microarchitecture, TORCHES[-1])
            report, printed = bench.measure_preset(home, microarchitecture, preset)
            print(printed)
            kept = bench.speed_limits(home, report)
            assert kept and not [promise for promise in kept if not promise["kept"]]
            reports[microarchitecture, preset] = report
        return reports[microarchitecture, preset]

    return measure


@pytest.mark.parametrize("microarchitecture", MICROARCHITECTURES)
def test_promised_speed(measured: Callable[[str, str], bench.Report], microarchitecture: str) -> None:
    report = measured(microarchitecture, "smoke")
    for case in report["cases"]:
        assert case["max_error"] <= (0 if case["kind"].startswith("dynamic") else 1)


def regressions(baseline: dict[str, float], report: bench.Report) -> list[str]:
    """The cases that cost more than GROWTH times what is in the baseline."""
    return [
        f"{case}: {cost:,.0f} {report['measure']}, {baseline[case]:,.0f} in the baseline"
        for case, cost in bench.case_costs(report).items()
        if cost > GROWTH * baseline[case]
    ]


@counted
@pytest.mark.parametrize("microarchitecture", MICROARCHITECTURES)
def test_no_case_has_grown(
    measured: Callable[[str, str], bench.Report], installed: Installed, microarchitecture: str
) -> None:
    kept = json.loads(bench.BASELINE.read_text())[microarchitecture]
    report = measured(microarchitecture, "smoke")
    assert kept.keys() == bench.case_costs(report).keys(), (
        "cases have changed: ci/bench.sh --preset smoke --update-baseline"
    )
    if regressions(kept, report):
        # One process in many has Python spend 1,400 instructions more on each call: what has grown is so in another.
        report, _ = bench.measure_preset(installed(microarchitecture, TORCHES[-1]), microarchitecture, "smoke")
    assert not regressions(kept, report), "where it is meant to be so: ci/bench.sh --preset smoke --update-baseline"
    # The alarm itself, at 3 %.
    case, cost = next(iter(bench.case_costs(report).items()))
    assert regressions({**kept, case: cost / 1.031}, report) and not regressions({**kept, case: cost / 1.029}, report)


@pytest.mark.parametrize("preset", ["stream", "threads", "memory"])
def test_other_promises(measured: Callable[[str, str], bench.Report], preset: str) -> None:
    measured(bench.measured_here()[-1], preset)


def test_report_says_what_was_measured(measured: Callable[[str, str], bench.Report]) -> None:
    report = measured("armv8_2a", "smoke")
    versions = report["versions"]
    assert versions["acl"] == VARIANTS["acl_version"][0] and versions["onednn"] == VARIANTS["onednn"][-1]
    assert versions["microarchitecture"] == "armv8.2-a" and versions["torch"].startswith(f"{TORCHES[-1]}.")
    assert all(versions[name] for name in ("acl_qlinear", "python", "numpy", "libc", "kernel"))
    assert report["preset"] == "smoke" and report["threads"] == 1 and report["warm_up_calls"] >= 1
    assert report["command"][1:3] and report["measure"] == ("seconds" if emulator.NATIVE else "modelled V1 cycles")
    assert emulator.NATIVE or report["cpu"] == bench.CPU
    picture = (bench.OUTPUT / "smoke-armv8_2a.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_compare(
    measured: Callable[[str, str], bench.Report], installed: Installed, run_in: Run, tmp_path: Path
) -> None:
    report = measured("armv8_2a", "smoke")
    files = [tmp_path / "before.json", tmp_path / "after.json", tmp_path / "other.json"]
    files[0].write_text(json.dumps(report))
    first = report["cases"][0]
    doubled = {**first, "acl": {**first["acl"], report["measure"]: 2 * first["acl"][report["measure"]]}}
    files[1].write_text(json.dumps({**report, "cases": [doubled, *report["cases"][1:]]}))
    files[2].write_text(json.dumps({**report, "threads": 2}))
    program = ["python", "-m", "acl_qlinear.bench", "--compare"]
    home, cpu = installed("armv8_2a", TORCHES[-1]), emulator.CPUS["armv8_2a"][0]
    done = run_in(home, [*program, *files[:2]], cpu)
    rows = [line.split() for line in done.stdout.splitlines() if "×" in line][1:]
    assert [row[-1] for row in rows] == ["2.000"] + ["1.000"] * (len(report["cases"]) - 1)
    done = run_in(home, [*program, files[0], files[2]], cpu)
    assert done.returncode == 1 and "the reports' threads are 1 and 2, expected the same" in done.stderr


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
            words += ["--counters", str(counters)]
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
    home = installed("neoverse_v1", TORCHES[-1])
    done = run_in(home, ["python", "-c", program, *options], bench.CPU, tmp_path / "counts")
    assert done.returncode == 1
    assert "not as promised: 1×64×64 u8 tensor: of PyTorch: 0.1" in done.stderr and "at most 0.01" in done.stderr


@counted
def test_time_under_emulation_is_refused(installed: Installed, run_in: Run) -> None:
    done = run_in(installed("neoverse_v1", TORCHES[-1]), ["python", "-m", "acl_qlinear.bench"], bench.CPU)
    assert done.returncode == 1 and "time under emulation says nothing" in done.stderr


BAD_OPTIONS = {
    "'8x768' is not a shape, expected MxKxN": ["--shape", "8x768"],
    "there is no directory missing": ["--json", "missing/report.json"],
    "--shape does not go with --preset memory": ["--preset", "memory", "--shape", "8x768x768"],
    "invalid choice: 'fp8'": ["--kind", "fp8"],
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
    home = installed("armv8_2a", TORCHES[-1])
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
    home = installed("armv8_2a", TORCHES[-1])
    done = run_in(home, ["python", "-c", program, *options], emulator.CPUS["armv8_2a"][0])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "µs per call" in done.stdout and "floor" not in done.stdout
    report = json.loads(file.read_text())
    assert report["measure"] == "seconds" and len(report["pinned_to"]) == 1 and len(report["cases"]) == 2
    costs = [case[engine] for case in report["cases"] for engine in ("acl", "torch", "fp32")]
    assert all(0 < cost["seconds"] < 1 and cost["spread"] >= 0 for cost in costs)


@counted
def test_profile_adds_up(installed: Installed, measured: Callable[[str, str], bench.Report]) -> None:
    """Functions' costs sum up to the call's, and ACL's kernel has most of it."""
    home = installed("neoverse_v1", TORCHES[-1])
    costs = hotspots.count_by_function(home, bench.CPU, "8x768x768", "u8 channel", "acl")
    cases = measured("neoverse_v1", "smoke")["cases"]
    whole = next(c["acl"] for c in cases if c["shape"] == [8, 768, 768] and c["kind"] == "u8 channel")
    assert sum(cost[1] for cost in costs.values()) / 24 == pytest.approx(whole["modelled V1 cycles"], rel=0.03)
    kernel = next(cost for (_, name), cost in costs.items() if name.endswith("sve_interleaved_s8s32_mmla_8x3VL"))
    assert kernel[1] / 24 > 0.6 * whole["modelled V1 cycles"]
    assert any("apply_to_all" in name for _, name in costs)
