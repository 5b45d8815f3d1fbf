# SPDX-License-Identifier: MIT
"""Everything that is promised about speed and memory, measured, and whether it is kept."""

import json
from pathlib import Path
from typing import Any

import archspec.cpu
from rich import box
from rich.table import Table

from ..base.messages import CiError, log
from ..base.paths import DIST, ROOT
from ..base.pins import MICROARCHITECTURES, SITE_PACKAGES, TORCH, VARIANTS
from ..build import dist
from ..inputs import bootstrap, emulator

OUTPUT = DIST / "bench"
BASELINE = ROOT / "tests/cost_baseline.json"
# On a Neoverse V1, whose cycles are modelled; both builds run there.
CPU = "neoverse-v1"
BUILT_FOR_IT = "neoverse_v1"
PRESETS = ("smoke", "stream", "threads", "memory", "models", "paper")
# Those that are compared with other engines.
WITH_PEERS = ("smoke", "models", "paper")
# What is in the baseline: both builds for the PyTorch that is compared with, and the one on the stable ABI.
BASELINE_BUILDS = [*((name, TORCH) for name in MICROARCHITECTURES), (BUILT_FOR_IT, VARIANTS["pytorch"][-1])]
Report = dict[str, Any]


def run_bench(home: Path, cpu: str, *options: str, hash_seed: int = 0) -> tuple[dict, str]:
    """What `python -m acl_qlinear.bench` reports and prints in a prefix, on AArch64 or on an emulated `cpu`."""
    variables = {"PYTHONHASHSEED": str(hash_seed)}
    if "--peers" in options:
        variables["PYTHONPATH"] = str(bootstrap.peers())
    counts, report = home / "counts.txt", home / "bench.json"
    for file in (counts, report):
        file.unlink(missing_ok=True)
    counters = [] if emulator.NATIVE else ["--counters", str(counts)]
    program = ["python", "-m", "acl_qlinear.bench", *counters, "--json", str(report), *options]
    done = emulator.run_program(home, program, cpu, counts, None, None, **variables)
    if done.returncode:
        raise CiError(f"acl_qlinear.bench failed in {home} with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(report.read_text()), done.stdout


def least_costs(home: Path, costs: dict[str, float]) -> dict[str, float]:
    """The lower of each case's cost in `costs` and of what it costs with two other hash seeds.

    The smallest calls may cost 4 % more in one checkout than in another, with the same seed: how memory is laid out
    depends on the length of paths and variables, too. What has really become dearer is so with every seed.
    """
    shapes = sorted({case.split()[0].replace("×", "x") for case in costs})
    for seed in (1, 2):
        log(f"measuring {', '.join(shapes)} again, with hash seed {seed}")
        report, _ = run_bench(home, CPU, *(f"--shape={shape}" for shape in shapes), hash_seed=seed)
        again = case_costs(report)
        costs = {case: min(cost, again[case]) for case, cost in costs.items()}
    return costs


def measured_here() -> list[str]:
    """The builds that can be run: all under emulation; on AArch64 those that have what they need."""
    host = archspec.cpu.host().name
    able = [one.name for one in MICROARCHITECTURES.values() if not emulator.NATIVE or one.runs_on(host)]
    for name in MICROARCHITECTURES.keys() - set(able):
        log(f"not measured: {name}, since this CPU is a {host}")
    return able


def measured_cpu(emulated: str) -> str:
    """The CPU that `run_bench` runs on."""
    return "this machine" if emulator.NATIVE else f"emulated {emulated}"


def build_name(microarchitecture: str, torch: str) -> str:
    """Of a build in the baseline and in dist/bench."""
    return f"{microarchitecture}-{torch}"


def measure_preset(
    home: Path, microarchitecture: str, preset: str, torch: str = TORCH, peers: bool = False
) -> tuple[Report, str]:
    """A preset's report and table in an installed prefix; JSON and PNG are left in dist/bench."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log(f"measuring {preset}, {microarchitecture}, PyTorch {torch}, on {measured_cpu(CPU)}")
    files = OUTPUT / f"{preset}-{build_name(microarchitecture, torch)}"
    options = ["--largest-m", "128"] if preset == "paper" and not emulator.NATIVE else []
    if torch != TORCH and not emulator.NATIVE:
        # What a build for another PyTorch costs more, it does in small calls: kernels are the same.
        options = ["--largest-m", "8"]
    if peers and preset in WITH_PEERS:
        options.append("--peers")
    report, printed = run_bench(home, CPU, "--preset", preset, "--png", f"{files}.png", *options)
    Path(f"{files}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report, printed


def case_costs(report: Report) -> dict[str, float]:
    """Our cost of each case of a grid, by name."""
    measure = report["measure"]
    return {f"{'×'.join(map(str, c['shape']))} {c['kind']}": round(c["acl"][measure]) for c in report["cases"]}


def package_sizes() -> dict[str, int]:
    """Bytes of each package in dist/channel, and of the libraries in the prefix of the build measured here."""
    found = {path.name: path.stat().st_size for path in sorted(dist.CHANNEL.glob("*/*.conda"))}
    for library in ("lib/libarm_compute.so", f"{SITE_PACKAGES}/acl_qlinear/_C.so"):
        found[library] = (DIST / f"prefix/{BUILT_FOR_IT}-pytorch{TORCH}" / library).stat().st_size
    return found


def new_table(title: str, left: int, *headings: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right", no_wrap=True)
    return table


def promises_table(kept: list[dict[str, Any]]) -> Table:
    """What is promised, what was measured, and whether that is kept."""
    table = new_table("targets and promises: at most", 1, "what", "measured", "target", "reached", "promise", "kept")
    for row in kept:
        reached, held = ("yes" if good else "NO" for good in (row["value"] <= row["target"], row["kept"]))
        table.add_row(row["what"], f"{row['value']:.4f}", f"{row['target']:g}", reached, f"{row['at_most']:g}", held)
    return table


def variants_table(reports: dict[str, Report]) -> Table:
    """Both builds on the same CPU."""
    measure = next(iter(reports.values()))["measure"]
    names = list(reports)
    table = new_table(f"both builds on {measured_cpu(CPU)}: {measure} per call", 2, "M×K×N", "kind", *names, "ratio")
    ours = {n: {(tuple(c["shape"]), c["kind"]): c["acl"][measure] for c in reports[n]["cases"]} for n in names}
    for shape, kind in ours[names[0]]:
        first, last = (ours[name][shape, kind] for name in names)
        table.add_row("×".join(map(str, shape)), kind, f"{first:,.6g}", f"{last:,.6g}", f"{last / first:.3f}")
    return table
