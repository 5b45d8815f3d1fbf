# SPDX-License-Identifier: MIT
"""Builds a package again from the recipe inside it, and says whether it is the same.

Builds PACKAGE, a .conda file in a channel that ci/build.sh or ci/publish.sh made, again from the
recipe and the sources inside it, in another folder. Prints "equal" and exits with 0 when the
result is the same byte for byte; else shows the difference with diffoscope and exits with 1.
"""

import subprocess
import tempfile
from pathlib import Path

from ..base.hashes import sha256
from ..base.messages import CiError, log
from ..base.paths import CACHE
from ..base.processes import run_command
from ..base.programs import DIFFOSCOPE, require_programs
from ..build import dist
from ..inputs import emulator
from ..release import rebuild
from . import add_channel_options, argument_parser


def main() -> None:
    parser = argument_parser("rebuild.sh", __doc__)
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="a .conda file in a channel of ours")
    add_channel_options(parser)
    parser.add_argument("--no-ccache", action="store_true", help="compile everything, whatever was compiled before")
    options = parser.parse_args()
    require_programs({**emulator.PROGRAMS, **DIFFOSCOPE})
    if not options.package.is_file() or options.package.suffix != ".conda":
        raise CiError(f"PACKAGE is {options.package}, expected a .conda file")

    upstream = dist.upstream_channels(options.channel)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = Path(name)
        ccache = work / "ccache" if options.no_ccache else CACHE / "ccache"
        log(f"building {options.package.name} again")
        again = rebuild.rebuild(options.package, upstream, work, ccache)
        old, new = sha256(options.package), sha256(again)
        if old == new:
            print(f"equal: {options.package.name}, sha256 {new}")
            return
        print(f"different: {options.package.name}\n  given    sha256 {old}\n  rebuilt  sha256 {new}", flush=True)
        subprocess.run(["diffoscope", "--no-progress", "--text-color=never", options.package, again], check=False)
        raise CiError(f"{options.package.name} cannot be built again as it is")


if __name__ == "__main__":
    run_command(main)
