# SPDX-License-Identifier: MIT
"""Pins what comes from Debian and from conda channels by hash.

Writes ci/debian.lock: the sha256 and the path of every package and source of Debian's that the bootstrap
channel and the emulator are made from, as Debian offers them today. Needed to take an update of Debian's,
and when a build says that it was not locked.

Writes env/lock: every package that the packages in dist/channel were built with or need, by sha256,
for conda, mamba and pixi. Needed after ci/build.sh has built with other ones.
"""

import shutil

from ..base.files import replacing
from ..base.messages import CiError
from ..base.processes import run_command
from ..build import dist
from ..inputs import debian, debian_lock
from ..inputs.locked_environments import ENVIRONMENTS
from ..release import environment_locks
from . import argument_parser


def main() -> None:
    argument_parser("lock.sh", __doc__).parse_args()
    if not dist.CHANNEL.is_dir():
        raise CiError(f"{dist.CHANNEL} is not there, whose packages say what they were built with: run ci/build.sh")
    if shutil.which("apt-get"):
        print(f"{debian.LOCK}: {debian_lock.write_debian_lock()} files")
    with replacing(ENVIRONMENTS) as partial:
        environment_locks.write_environments(partial)
    print(f"{ENVIRONMENTS}: {', '.join(sorted(file.stem for file in ENVIRONMENTS.glob('*.txt')))}")


if __name__ == "__main__":
    run_command(main)
