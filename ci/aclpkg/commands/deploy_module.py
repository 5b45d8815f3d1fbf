# SPDX-License-Identifier: MIT
"""Deploys acl-qlinear as an environment module, for every microarchitecture.

Installs acl-qlinear, with Python and PyTorch, and Arm Compute Library alone, below DIR, for every
microarchitecture, and writes modulefiles for Lmod and for Environment Modules 5. A module picks the
build for the node's CPU when it is loaded. The version becomes the default; older ones stay.
"""

import os
from functools import partial
from pathlib import Path

from rich.console import Console

from ..base.messages import CiError
from ..base.processes import run_command
from ..build import dist
from ..deploy import modules
from ..release import signed_channel
from . import argument_parser


def main() -> None:
    parser = argument_parser("deploy-module.sh", __doc__)
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where everything goes")
    parser.add_argument(
        "--channel",
        action="append",
        default=[],
        metavar="C",
        help="a channel (address or folder), or a bundle of ci/bundle.sh, which needs no other; may be repeated "
        "(default: dist/channel, and what it was built with)",
    )
    parser.add_argument(
        "--signers",
        type=Path,
        metavar="FILE",
        help="names and public keys of those whom you trust; every channel must be signed by one (see ci/verify.sh)",
    )
    parser.add_argument("--version", metavar="V", help="acl-qlinear's version (default: the newest)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--remove", metavar="V", help="take acl-qlinear V away, and the ACL that only it needed")
    what.add_argument("--list", action="store_true", help="show what is deployed")
    options = parser.parse_args()

    if options.signers and (others := [c for c in options.channel if not Path(c).exists()]):
        raise CiError(f"--channel is {others[0]}, expected a folder or a bundle: --signers checks no others")
    root = options.root.absolute()
    os.umask(0o022)
    if options.list or options.remove:
        if not root.is_dir():
            raise CiError(f"--root is {root}, expected a folder that ci/deploy-module.sh has deployed to")
        if options.remove:
            modules.remove(root, options.remove)
        Console(width=100, highlight=False).print(modules.table(root))
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        given = options.channel or [str(dist.CHANNEL), *dist.upstream_of_built_channel()]
        with modules.opened(given, partial(signed_channel.check_channel, signers=options.signers)) as channels:
            modules.deploy(root, channels, options.version)
    except OSError as error:
        raise CiError(f"cannot deploy to {root}: {error}; users see what they saw before") from error
    Console(width=100, highlight=False).print(modules.table(root))
    print(f"module use {root}/modulefiles/lmod    (Lmod)\nmodule use {root}/modulefiles/tcl     (Environment Modules)")


if __name__ == "__main__":
    run_command(main)
