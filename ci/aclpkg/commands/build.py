# SPDX-License-Identifier: MIT
"""Builds both packages into dist/channel, installs them and prints the table.

Builds Arm Compute Library for both microarchitectures and acl-qlinear for every pinned
PyTorch, leaves a conda channel in dist/channel, installs acl-qlinear from it into a prefix
per microarchitecture, and prints a table of errors and speed.

What is missing on the machine is installed with apt, as root; elsewhere it is named.
"""

import argparse
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..base.messages import log
from ..base.paths import DIST
from ..base.pins import TORCH, VARIANTS
from ..base.processes import run_command
from ..base.programs import require_programs
from ..build import dist
from ..inputs import emulator
from ..measure import bench
from ..release import wheel
from . import add_channel_options, argument_parser

# On what kinds of layers the tables compare.
SHOWN_KINDS = ("u8 tensor", "s8 tensor", "u8 channel", "dynamic channel")


def main() -> None:
    parser = argument_parser("build.sh", __doc__)
    add_channel_options(parser)
    operators = VARIANTS["operators"]
    parser.add_argument("--operators", choices=operators, default="qlinear", help="how much of ACL to build")
    # Its name before there was ci/hotspots.sh.
    parser.add_argument("--profile", choices=operators, dest="operators", help=argparse.SUPPRESS)
    parser.add_argument("--wheel", action="store_true", help="also make the pip wheel, with every build in it")
    parser.add_argument("--no-table", action="store_true", help="stop when the channel is there")
    options = parser.parse_args()
    require_programs(emulator.PROGRAMS)

    upstream = dist.upstream_channels(options.channel)
    dist.build_channel(upstream, options.operators)
    log(f"channel: {dist.CHANNEL}")
    if options.wheel:
        made = wheel.make_wheel(dist.CHANNEL, DIST / "wheel")
        log(f"wheel: {made}, {made.stat().st_size / 2**20:.1f} MiB")
    if options.no_table:
        return
    reports = []
    emulator.prepare()
    homes = {name: _install(name, upstream) for name in bench.measured_here()}
    # Counts are exact whatever else runs; times are not.
    with ThreadPoolExecutor(1 if emulator.NATIVE else os.cpu_count()) as pool:
        for found in pool.map(_measure, homes, homes.values()):
            for report, printed in found:
                reports.append(report)
                print(f"\n{printed}", end="", flush=True)
    (DIST / "bench.json").write_text(json.dumps(reports, indent=2) + "\n")


def _install(microarchitecture: str, upstream: list[str]) -> Path:
    log(f"installing acl-qlinear for {microarchitecture}")
    return dist.install(microarchitecture, TORCH, upstream, [])


def _measure(microarchitecture: str, home: Path) -> list[tuple[bench.Report, str]]:
    """The reports and tables of a prefix, one for each CPU that the microarchitecture's builds are tried on."""
    log(f"measuring acl-qlinear for {microarchitecture}")
    kinds = [word for kind in SHOWN_KINDS for word in ("--kind", kind)]
    cpus = ["this machine"] if emulator.NATIVE else emulator.CPUS[microarchitecture]
    return [bench.run_bench(home, cpu, *kinds) for cpu in cpus]


if __name__ == "__main__":
    run_command(main)
