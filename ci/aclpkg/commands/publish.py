# SPDX-License-Identifier: MIT
"""Puts packages into a channel that is a folder, whole or not at all.

Adds the packages of dist/channel to CHANNEL, a folder that any web server can serve. Packages come
first, and one rename replaces index, manifest and signature. It may be killed at any moment, and run
again. A published file is never replaced by a different one, and a build that breaks the ABI of the
last one of its version is refused.
"""

from pathlib import Path

from ..base.messages import CiError
from ..base.processes import run_command
from ..base.programs import require_programs
from ..build import dist
from ..release import signed_channel
from . import argument_parser


def main() -> None:
    parser = argument_parser("publish.sh", __doc__)
    parser.add_argument("channel", type=Path, metavar="CHANNEL", help="the folder")
    parser.add_argument(
        "--key", type=Path, help="the private OpenSSH key that signs the folder's manifest (ssh-keygen -t ed25519)"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        default=dist.CHANNEL,
        metavar="DIR",
        help="publish the packages of this channel instead",
    )
    options = parser.parse_args()
    require_programs({"abidiff": "abigail-tools", "ssh-keygen": "openssh-client"})

    packages = sorted(options.source.glob("*/[!.]*.conda"))
    if not packages:
        raise CiError(f"{options.source} has no packages; run ci/build.sh, or give another folder with --from")
    if not options.key or not options.key.is_file():
        raise CiError(
            f"--key is {options.key or 'missing'}, expected a private OpenSSH key, which signs the channel's manifest; "
            "ssh-keygen -t ed25519 -f KEY makes one"
        )
    new = signed_channel.publish(packages, options.channel, options.key)
    print(f"{options.channel}: {len(new)} packages published, {len(packages) - len(new)} were there")


if __name__ == "__main__":
    run_command(main)
