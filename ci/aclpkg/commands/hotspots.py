# SPDX-License-Identifier: MIT
"""Shows which functions a layer's call spends its instructions and cycles in.

Counts, under emulation, the instructions and modelled Neoverse V1 cycles of one call of a
linear layer by function: ci/hotspots.sh 8x768x768 "u8 channel". Needs the channel of ci/build.sh.
"""

from rich.console import Console

from ..base.files import holding_lock
from ..base.messages import CiError
from ..base.paths import DIST
from ..base.pins import TORCH, VARIANTS
from ..base.processes import run_command
from ..base.programs import require_programs
from ..build import dist
from ..inputs import emulator
from ..measure import hotspots
from . import argument_parser


def main() -> None:
    parser = argument_parser("hotspots.sh", __doc__)
    parser.add_argument("shape", metavar="MxKxN")
    parser.add_argument("kind", metavar="KIND", help='"u8 channel", "dynamic tensor", ...')
    parser.add_argument(
        "--engine",
        choices=("acl", "torch", "fp32"),
        default="acl",
        help="ours (acl, the default), PyTorch's int8 layer or its fp32 one",
    )
    parser.add_argument("--microarchitecture", choices=VARIANTS["microarchitecture"], default="neoverse_v1")
    parser.add_argument("--cpu", default="neoverse-v1", help="the CPU to emulate (default: neoverse-v1)")
    parser.add_argument("--rows", type=int, default=25, metavar="N", help="how many functions to show (default: 25)")
    options = parser.parse_args()
    if emulator.NATIVE:
        raise CiError("this counts under emulation; on AArch64, use perf")
    require_programs(emulator.PROGRAMS)
    # A prefix of its own, which the counts are written to: neither a test nor a second call changes it meanwhile.
    with holding_lock(DIST / "prefix/hotspots.lock"):
        home = dist.install(options.microarchitecture, TORCH, dist.upstream_of_built_channel(), [], "-hotspots")
        costs = hotspots.count_by_function(home, options.cpu, options.shape, options.kind, options.engine)
    title = f"{options.shape} {options.kind}, {options.engine}, {options.microarchitecture} on {options.cpu}"
    Console(width=100, highlight=False).print(hotspots.costs_table(costs, title, options.rows))


if __name__ == "__main__":
    run_command(main)
