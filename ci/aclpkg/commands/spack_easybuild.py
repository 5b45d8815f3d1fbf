# SPDX-License-Identifier: MIT
"""Writes Spack's and EasyBuild's descriptions of the packages.

Writes a Spack package repository, env/spack/spack_repo, and easyconfigs, env/easybuild/*.eb, from the
templates beside them and the pins in recipe/variants.yaml. Needed after either was changed.
"""

from ..base.processes import run_command
from ..deploy import spack_easybuild
from . import argument_parser


def main() -> None:
    argument_parser("spack-easybuild.sh", __doc__).parse_args()
    count = spack_easybuild.write_descriptions()
    print(f"{count} files in env/spack and env/easybuild")


if __name__ == "__main__":
    run_command(main)
