# SPDX-License-Identifier: MIT
"""Measures everything that is promised about speed and memory, and says what is kept.

Runs the presets of `python -m acl_qlinear.bench` in prefixes installed from dist/channel (made by
ci/build.sh where it is missing) and prints their tables, what is promised and whether it is kept,
and the neoverse_v1 build against armv8_2a on the same CPU. Leaves JSON and PNG files in
dist/bench; results.json has all of it.

Exits with 1 when a promise is not kept.
"""

import json
from typing import Any

from rich.console import Console

from ..base.messages import CiError
from ..base.paths import ROOT
from ..base.pins import TORCH
from ..base.processes import run_command
from ..base.programs import require_programs
from ..build import dist
from ..inputs import emulator
from ..measure import acl_build, bench
from . import argument_parser


def main() -> int:
    parser = argument_parser("bench.sh", __doc__)
    parser.add_argument(
        "--preset",
        action="append",
        choices=bench.PRESETS,
        help="only this one; may be repeated. Emulated, paper takes half an hour, and models long, too; the others "
        "take a few minutes together",
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help=f"also measure ONNX Runtime and OpenVINO, from PyPI, in {', '.join(bench.WITH_PEERS)}",
    )
    parser.add_argument(
        "--builds",
        action="store_true",
        help="also time build_acl.sh, cold and with a warm ccache, for both sets of "
        "operators, of the variant armv8.2-a (half an hour on 2 cores)",
    )
    parser.add_argument(
        "--update-baseline",
        action="store_true",
        help=f"write {bench.BASELINE.relative_to(ROOT)}, which ci/test.sh compares with",
    )
    options = parser.parse_args()
    if options.update_baseline and (emulator.NATIVE or "smoke" not in (options.preset or bench.PRESETS)):
        raise CiError("--update-baseline needs preset smoke under emulation: the baseline has no times")
    require_programs(emulator.PROGRAMS)
    if not dist.CHANNEL.is_dir():
        dist.build_channel(dist.upstream_channels([]), "qlinear")
    upstream = dist.upstream_of_built_channel()
    console = Console(width=100, highlight=False)
    homes = {m: dist.install(m, TORCH, upstream, ["matplotlib-base"]) for m in bench.measured_here()}
    results: dict[str, Any] = {"reports": [], "promises": [], "package_bytes": {}}
    smoke: dict[str, bench.Report] = {}
    main_build = bench.BUILT_FOR_IT if bench.BUILT_FOR_IT in homes else next(iter(homes))
    for preset in options.preset or bench.PRESETS:
        for microarchitecture, home in homes.items():
            if preset != "smoke" and microarchitecture != main_build:
                continue
            report, printed = bench.measure_preset(home, microarchitecture, preset, peers=options.peers)
            console.print(printed)
            results["reports"].append(report)
            label = f"{microarchitecture}, " if len(homes) > 1 and preset == "smoke" else ""
            results["promises"] += [{**p, "what": label + p["what"]} for p in report["promises"]]
            if preset == "smoke":
                smoke[microarchitecture] = report
    if len(smoke) > 1:
        console.print(bench.variants_table(smoke))
    if options.builds:
        results["builds"] = acl_build.build_figures()
        console.print(acl_build.builds_table(results["builds"]))
    if bench.BUILT_FOR_IT in homes:
        results["package_bytes"] = bench.package_sizes()
    console.print(bench.promises_table(results["promises"]))
    (bench.OUTPUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    if options.update_baseline:
        baseline = {}
        for microarchitecture, torch in bench.BASELINE_BUILDS:
            if torch == TORCH:
                report = smoke[microarchitecture]
            else:
                home = dist.install(microarchitecture, torch, upstream, ["matplotlib-base"])
                report, printed = bench.measure_preset(home, microarchitecture, "smoke", torch)
                console.print(printed)
            baseline[bench.build_name(microarchitecture, torch)] = bench.case_costs(report)
        bench.BASELINE.write_text(json.dumps(baseline, indent=2, ensure_ascii=False) + "\n")
    return 0 if all(p["kept"] for p in results["promises"]) else 1


if __name__ == "__main__":
    run_command(main)
