# SPDX-License-Identifier: MIT
"""What the scripts in ci/ start: a module for each, with a `main` and the whole text of its --help."""

import argparse
import os

from ..inputs import debian


def argument_parser(script: str, text: str | None) -> argparse.ArgumentParser:
    """Returns the parser of ci/`script`, whose --help begins with `text` as it is."""
    return argparse.ArgumentParser(
        prog=f"ci/{script}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


class _OnlyLocked(argparse.Action):
    """Sets the variable that stands for --locked, for this process and for those that it starts."""

    def __call__(self, *_: object) -> None:
        os.environ[debian.ONLY_LOCKED] = "1"


def add_channel_options(parser: argparse.ArgumentParser) -> None:
    """Adds --channel and --locked."""
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="URL",
        help="take compilers, Python and PyTorch from this conda channel; may be repeated; 'bootstrap' is one made "
        "of Debian's packages and PyPI's wheels (default: conda-forge where it is reached, else bootstrap)",
    )
    parser.add_argument(
        "--locked",
        nargs=0,
        action=_OnlyLocked,
        help="fail where a file of Debian's that ci/debian.lock pins cannot be had any more; without it, what Debian "
        "offers in its place is used, which is said, and marked in provenance and SBOM",
    )
