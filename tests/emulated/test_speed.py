# SPDX-License-Identifier: MIT
"""What the packages promise of speed and memory, and that no case has become dearer."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import rows
from aclpkg.build import dist
from aclpkg.inputs import bootstrap, emulator
from aclpkg.measure import bench, hotspots

from ..conftest import ACL_VERSION, MICROARCHITECTURES, TORCH, counted

# What a case may grow by before it is a regression.
GROWTH = 1.03
Run = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def measured(installed: Installed) -> Callable[..., bench.Report]:
    """measured(microarchitecture, preset, PyTorch minor): the report; promises, which are about TORCH, are kept."""
    reports: dict[tuple[str, ...], bench.Report] = {}

    def measure(microarchitecture: str, preset: str, torch: str = TORCH) -> bench.Report:
        if (microarchitecture, preset, torch) not in reports:
            home = installed(microarchitecture, torch)
            report, printed = bench.measure_preset(home, microarchitecture, preset, torch)
            print(printed)
            if torch == TORCH:
                assert report["promises"] and not [one for one in report["promises"] if not one["kept"]]
            reports[microarchitecture, preset, torch] = report
        return reports[microarchitecture, preset, torch]

    return measure


@pytest.mark.parametrize("microarchitecture", MICROARCHITECTURES)
def test_promised_speed(measured: Callable[..., bench.Report], microarchitecture: str) -> None:
    report = measured(microarchitecture, "smoke")
    for case in report["cases"]:
        assert case["max_error"] <= (0 if case["kind"].startswith("dynamic") else 1)


def cases_above(bounds: dict[str, float], costs: dict[str, float]) -> dict[str, float]:
    """Those of the costs that are above their bounds."""
    return {case: cost for case, cost in costs.items() if cost > bounds[case]}


def still_above(bounds: dict[str, float], costs: dict[str, float], home: Path) -> dict[str, float]:
    """The same, when what is above has been measured again in a prefix, with other hash seeds."""
    above = cases_above(bounds, costs)
    return cases_above(bounds, bench.least_costs(home, above)) if above else {}


@counted
@pytest.mark.parametrize(("microarchitecture", "torch"), bench.BASELINE_BUILDS)
def test_no_case_has_grown(
    measured: Callable[..., bench.Report], installed: Installed, microarchitecture: str, torch: str
) -> None:
    kept = json.loads(bench.BASELINE.read_text())[bench.build_name(microarchitecture, torch)]
    report = measured(microarchitecture, "smoke", torch)
    costs = bench.case_costs(report)
    assert kept.keys() == costs.keys(), "cases have changed: ci/bench.sh --preset smoke --update-baseline"
    bounds = {case: GROWTH * cost for case, cost in kept.items()}
    grown = still_above(bounds, costs, installed(microarchitecture, torch))
    before = {case: kept[case] for case in grown}
    advice = "where it is meant to be so: ci/bench.sh --preset smoke --update-baseline"
    assert not grown, f"{report['measure']}; the baseline has {before}; {advice}"
    # The alarm itself, at 3 %.
    case, cost = next(iter(costs.items()))
    assert case in cases_above({**bounds, case: GROWTH * cost / 1.031}, costs)
    assert case not in cases_above({**bounds, case: GROWTH * cost / 1.029}, costs)


@counted
def test_what_grew_is_measured_again(measured: Callable[..., bench.Report], installed: Installed) -> None:
    """Hash seeds change a small call's cost by less than 10 %; a cost that was too high by twice that is corrected."""
    case = "1×64×64 dynamic channel"
    cost = bench.case_costs(measured("armv8_2a", "smoke"))[case]
    home = installed("armv8_2a", TORCH)
    assert cost / 1.1 <= bench.least_costs(home, {case: 1.2 * cost})[case] <= 1.1 * cost


@counted
def test_cost_of_the_stable_abi(measured: Callable[..., bench.Report], installed: Installed) -> None:
    """What a call costs more than in a build for one PyTorch, where that is most: in the smallest."""
    name, newest = bench.BASELINE_BUILDS[-1]
    costs, others = (bench.case_costs(measured(name, "smoke", torch)) for torch in (newest, TORCH))
    bounds = {f"1×64×64 {kind}": 1.15 * others[f"1×64×64 {kind}"] for kind in ("dynamic tensor", "dynamic channel")}
    above = still_above(bounds, {case: costs[case] for case in bounds}, installed(name, newest))
    assert not above, bounds


@pytest.mark.parametrize("preset", ["stream", "threads", "memory"])
def test_other_promises(measured: Callable[..., bench.Report], preset: str) -> None:
    measured(bench.measured_here()[-1], preset)


def test_report_says_what_was_measured(measured: Callable[..., bench.Report]) -> None:
    report = measured("armv8_2a", "smoke")
    versions = report["versions"]
    assert versions["acl"] == ACL_VERSION and versions["onednn"] == dict(rows("pytorch", "onednn"))[TORCH]
    assert versions["microarchitecture"] == "armv8.2-a" and versions["torch"].startswith(f"{TORCH}.")
    assert all(versions[name] for name in ("acl_qlinear", "python", "numpy", "libc", "kernel"))
    assert report["preset"] == "smoke" and report["threads"] == 1 and report["warm_up_calls"] >= 1
    assert report["command"][1:3] and report["measure"] == ("seconds" if emulator.NATIVE else "modelled V1 cycles")
    assert emulator.NATIVE or report["cpu"] == bench.CPU
    picture = (bench.OUTPUT / f"smoke-armv8_2a-{TORCH}.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


def test_compare(measured: Callable[..., bench.Report], installed: Installed, run_in: Run, tmp_path: Path) -> None:
    report = measured("armv8_2a", "smoke")
    files = [tmp_path / "before.json", tmp_path / "after.json", tmp_path / "other.json"]
    files[0].write_text(json.dumps(report))
    first = report["cases"][0]
    doubled = {**first, "acl": {**first["acl"], report["measure"]: 2 * first["acl"][report["measure"]]}}
    files[1].write_text(json.dumps({**report, "cases": [doubled, *report["cases"][1:]]}))
    files[2].write_text(json.dumps({**report, "threads": 2}))
    program = ["python", "-m", "acl_qlinear.bench", "--compare"]
    home, cpu = installed("armv8_2a", TORCH), emulator.CPUS["armv8_2a"][0]
    done = run_in(home, [*program, *files[:2]], cpu)
    rows = [line.split() for line in done.stdout.splitlines() if "×" in line][1:]
    assert [row[-1] for row in rows] == ["2.000"] + ["1.000"] * (len(report["cases"]) - 1)
    done = run_in(home, [*program, files[0], files[2]], cpu)
    assert done.returncode == 1 and "the reports' threads are 1 and 2, expected the same" in done.stderr


@counted
def test_profile_adds_up(installed: Installed, measured: Callable[..., bench.Report]) -> None:
    """Functions' costs sum up to the call's, and ACL's kernel has most of it."""
    home = installed("neoverse_v1", TORCH)
    costs = hotspots.count_by_function(home, bench.CPU, "8x768x768", "u8 channel", "acl")
    cases = measured("neoverse_v1", "smoke")["cases"]
    whole = next(c["acl"] for c in cases if c["shape"] == [8, 768, 768] and c["kind"] == "u8 channel")
    assert sum(cost[1] for cost in costs.values()) / 24 == pytest.approx(whole["modelled V1 cycles"], rel=0.03)
    kernel = next(cost for (_, name), cost in costs.items() if name.endswith("sve_interleaved_s8s32_mmla_8x3VL"))
    assert kernel[1] / 24 > 0.6 * whole["modelled V1 cycles"]
    assert any("apply_to_all" in name for _, name in costs)


@pytest.fixture
def run_example(installed: Installed, run_in: Run, tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """run_example(file, option…, home=prefix, VARIABLE=value…): an example's results, and what it measures."""

    def run(file: str, *options: str, home: Path | None = None, **variables: str) -> tuple[dict[str, Any], str]:
        counts = None if emulator.NATIVE else tmp_path / "counts"
        program = ["python", ROOT / "examples" / file, "--json", tmp_path / "results.json", *options]
        program += ["--counters", counts] if counts else []
        home = home or installed(bench.measured_here()[-1], TORCH)
        done = run_in(home, program, bench.CPU, counts, **variables)
        print(done.stdout, done.stderr[-2000:])
        assert done.returncode == 0
        cost = "seconds" if emulator.NATIVE else "modelled V1 cycles"
        return json.loads((tmp_path / "results.json").read_text()), cost

    return run


def test_bert(run_example: Callable[..., tuple[dict[str, Any], str]]) -> None:
    """examples/bert.py: close to fp32, cheaper than it and than PyTorch's int8."""
    results, cost = run_example("bert.py")
    for kind in ("dynamic", "static"):
        ours, theirs = results[f"acl_qlinear {kind}"], results[f"PyTorch int8 {kind}"]
        assert ours["cosine"] >= 0.98
        assert ours[cost] < 0.5 * results["fp32"][cost] and ours[cost] < 0.2 * theirs[cost]


def test_minilm(run_example: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path) -> None:
    """examples/minilm.py: docs/speed.md's table, without what takes minutes."""
    ours = {"dynamic": 0.985, "fused": 0.995, "static": 0.985, "smoothed": 0.993}
    picture = tmp_path / "minilm.png"
    options = ["--tokens", "32", "--png", str(picture), "--ways", *(f"acl_qlinear {kind}" for kind in ours)]
    # Apart from other tests: scikit-learn, which sentence-transformers takes, brings an OpenMP of its own.
    packages = ["matplotlib-base", "sentence-transformers"]
    home = dist.install(bench.measured_here()[-1], TORCH, dist.upstream_of_built_channel(), packages, "-minilm")
    results, _ = run_example("minilm.py", *options, home=home, PYTHONPATH=str(bootstrap.minilm().parent.parent))
    for kind, worst in ours.items():
        row = results[f"acl_qlinear {kind}"]
        assert row["worst"] >= worst and row["ranks"] >= 0.98 and row["bytes"] < 0.7 * results["fp32"]["bytes"], kind
        assert row["cost"]["32"] <= 0.3 * results["fp32"]["cost"]["32"], kind
    smoothed, static = (results[f"acl_qlinear {kind}"] for kind in ("smoothed", "static"))
    assert smoothed["worst"] > static["worst"] and smoothed["cost"]["32"] <= 1.02 * static["cost"]["32"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_decoder(run_example: Callable[..., tuple[dict[str, Any], str]]) -> None:
    """examples/decoder.py: prompts and single tokens, with weights that are packed once."""
    results, _ = run_example("decoder.py")
    for kind in ("dynamic", "per token"):
        row = results[f"acl_qlinear {kind}"]
        assert row["packed once"] and row["cosine"] >= 0.98 and len(row["tokens"]) == 19
        assert row["prompt"] <= 0.3 * results["fp32"]["prompt"] and row["token"] <= 0.5 * results["fp32"]["token"]
