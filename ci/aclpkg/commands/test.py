# SPDX-License-Identifier: MIT
"""Runs the tests, after building what they need. Stages, in this order; without any, all of them:

  lint      formatters, linters and type checks
  unit      the tools and their tables; takes no channel and no root
  engine    the C++ tests of kernels and engine, under ctest; takes ACL and a compiler
  emulated  all that runs inside the installed prefixes, emulated where this machine is no AArch64
  packages  the channel: contents, solving, rebuilding, publishing, damage
  cluster   modules, Slurm, images, Spack and EasyBuild, the commands in the documentation

After the stages come arguments for pytest: -k NAME, -x, --durations=20 and the like.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from ..base.messages import CiError
from ..base.paths import ROOT
from ..base.processes import run_command
from ..base.programs import DIFFOSCOPE, require_programs
from ..build import dist
from ..inputs import emulator
from . import add_channel_options, argument_parser

# The programs that the tests of each stage take, by Debian's packages.
PROGRAMS = {
    "lint": {"git": "git"},
    "unit": {"dpkg-deb": "dpkg", "git": "git", "gpg": "gnupg"},
    "engine": emulator.PROGRAMS,
    "emulated": emulator.PROGRAMS,
    "packages": {
        **emulator.PROGRAMS,
        **DIFFOSCOPE,
        "abidiff": "abigail-tools",
        "chromium": "chromium",
        "git": "git",
        "ip": "iproute2",
        # The oldest that models all cores; Debian 12 and 13 have it.
        "llvm-mca-19": "llvm-19",
        "pkg-config": "pkg-config",
        "ps": "procps",
        "ssh-keygen": "openssh-client",
    },
    # Lmod and Environment Modules, which Debian does not install side by side, come by ci/debian.lock.
    "cluster": {
        **emulator.PROGRAMS,
        **DIFFOSCOPE,
        "abidiff": "abigail-tools",
        "buildah": "buildah",
        # Debian 13's buildah makes no container without it.
        "/usr/lib/podman/netavark": "netavark",
        "gdb-multiarch": "gdb-multiarch",
        "git": "git",
        "munged": "munge",
        "skopeo": "skopeo",
        "slurmctld": "slurmctld",
        "slurmd": "slurmd",
        "srun": "slurm-client",
        "ssh-keygen": "openssh-client",
        # Lmod reads .version files by it.
        "tclsh": "tcl",
        "umoci": "umoci",
    },
}
INSIDE = ROOT / "tests/emulated/inside"
WITHOUT_CHANNEL = {"lint", "unit", "engine"}


def stage_of(word: str) -> str:
    """Returns the stage that a word of the command line is, or that the test file it names belongs to.

    Raises CiError for any other word.
    """
    if word in PROGRAMS:
        return word
    path = Path(word.split("::")[0]).absolute()
    if path.is_relative_to(INSIDE):
        raise CiError(f"STAGE is {word!r}, which runs inside a prefix: ci/test.sh emulated --in PREFIX -k NAME")
    for stage in PROGRAMS:
        if path.exists() and path.is_relative_to(ROOT / "tests" / stage):
            return stage
    raise CiError(
        f"STAGE is {word!r}, expected {', '.join(PROGRAMS)}, or a file in a folder of theirs below tests/; arguments "
        "for pytest come after the stages"
    )


def pytest_arguments(options: argparse.Namespace, others: list[str]) -> list[str]:
    """Returns what pytest is started with. others: the arguments that are for it."""
    everything = [*["--all"] * options.all, *(f"--channel={channel}" for channel in options.channel)]
    if options.prefix:
        inside = [f"--inside={shlex.join(others)}"]
        return ["-s", "tests/emulated/test_prefixes.py", "--in", options.prefix, *inside, *everything]
    targets = [f"tests/{word}" if word in PROGRAMS else word for word in options.stages]
    side_by_side = ["-n", str(os.cpu_count()), "--maxprocesses", "4", "--dist", "loadscope", "--no-loadscope-reorder"]
    return [*side_by_side, *everything, *others, *(targets or ["tests"])]


def main() -> None:
    parser = argument_parser("test.sh", __doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="a stage, or a test file; several may be given")
    add_channel_options(parser)
    parser.add_argument(
        "--in",
        dest="prefix",
        metavar="PREFIX",
        help="with emulated: only the tests inside this prefix, neoverse_v1-2.9 for one, and what they print; "
        "pytest's arguments are for these",
    )
    parser.add_argument("--all", action="store_true", help="also what takes longest (CONTRIBUTING.md)")
    options, others = parser.parse_known_args()
    if misplaced := [word for word in others if word in PROGRAMS]:
        raise CiError(f"{misplaced[0]!r} is a stage after other arguments, expected all stages first")
    if options.prefix and options.stages != ["emulated"]:
        raise CiError(f"--in is {options.prefix}, expected it with the stage emulated alone")
    os.chdir(ROOT)
    stages = [stage_of(word) for word in options.stages] or list(PROGRAMS)
    require_programs({name: package for stage in stages for name, package in PROGRAMS[stage].items()})
    if not WITHOUT_CHANNEL.issuperset(stages):
        dist.build_channel(dist.upstream_channels(options.channel), "qlinear")
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *pytest_arguments(options, others)])


if __name__ == "__main__":
    run_command(main)
