# SPDX-License-Identifier: MIT
"""Makes one archive with a channel that needs no other, for clusters without internet.

Writes ARCHIVE, a .tar file with a signed channel, acl-qlinear-channel/, that has acl-qlinear from
dist/channel, numpy, matplotlib, and all that they need, Python and PyTorch too, for every
microarchitecture. ci/deploy-module.sh --channel takes it as it is. Where it is unpacked:

  conda create -n NAME --offline --override-channels -c file://$PWD/acl-qlinear-channel acl-qlinear
"""

from pathlib import Path

from ..base.messages import CiError
from ..base.processes import run_command
from ..base.programs import require_programs
from ..build import dist
from ..deploy import modules
from ..release import bundle
from . import argument_parser


def main() -> None:
    parser = argument_parser("bundle.sh", __doc__)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="the .tar file to write")
    parser.add_argument(
        "--key",
        type=Path,
        required=True,
        help="the private OpenSSH key that signs the channel's manifest; ci/verify.sh checks it",
    )
    parser.add_argument(
        "--spec",
        action="append",
        default=[],
        metavar="SPEC",
        help="what to put in instead, with all that it needs; may be repeated",
    )
    options = parser.parse_args()
    require_programs({"ssh-keygen": "openssh-client"})
    if not options.key.is_file():
        raise CiError(f"--key is {options.key}, expected a private OpenSSH key; ssh-keygen -t ed25519 -f KEY makes one")
    if not options.archive.absolute().parent.is_dir():
        raise CiError(f"ARCHIVE is {options.archive}, expected a file in a folder that exists")
    channels = [dist.CHANNEL.as_uri(), *dist.upstream_of_built_channel()]
    specs = options.spec or ["acl-qlinear", *modules.EXTRA]
    count = bundle.bundle(options.archive.absolute(), specs, channels, options.key)
    print(f"{options.archive}: {count} packages, {options.archive.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    run_command(main)
