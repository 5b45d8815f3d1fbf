# SPDX-License-Identifier: MIT
"""Writes the recipes as conda-forge's staged-recipes takes them.

Writes FOLDER/recipes/NAME for each recipe: a folder with all that rattler-build needs to build it. Names of
maintainers and a homepage are for whoever proposes the recipes to fill in.
"""

from pathlib import Path

from ..base.processes import run_command
from ..release.staged_recipes import write_staged_recipes
from . import argument_parser


def main() -> None:
    parser = argument_parser("staged-recipes.sh", __doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where recipes/ is made")
    for recipe in write_staged_recipes(parser.parse_args().folder):
        print(recipe)


if __name__ == "__main__":
    run_command(main)
