"""Runs the tests, after building what they need; other arguments go to pytest.

Builds the packages (ci/build.sh --no-table --channel URL...; nothing is done twice), then
runs the linters and the tests, a file of them on each processor, four at most. Without pytest's
arguments, all of them but the slowest parts.
"""

import os
import sys

from ..base.paths import ROOT
from ..base.processes import run_command
from ..build import dist, recipes
from . import argument_parser


def main() -> None:
    parser = argument_parser("test.sh", __doc__)
    parser.add_argument("--channel", action="append", default=[], metavar="URL", help="as for ci/build.sh")
    parser.add_argument("--all", action="store_true", help="the slowest parts too: packages are compiled again")
    options, more = parser.parse_known_args()
    dist.build_channel(dist.upstream_channels(options.channel), "qlinear", recipes.acl_version())
    os.chdir(ROOT)
    words = ["-n", str(os.cpu_count()), "--maxprocesses", "4", "--dist", "loadfile"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *words, *["--all"] * options.all, *(more or ["tests"])])


if __name__ == "__main__":
    run_command(main)
