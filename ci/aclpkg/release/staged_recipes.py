# SPDX-License-Identifier: MIT
"""The recipes as conda-forge takes new ones: each in a folder of its own, which needs nothing around it."""

import re
import shutil
from pathlib import Path

from ..base.files import replacing
from ..base.messages import CiError
from ..build.recipes import RECIPES, SOURCES

_OUTSIDE = re.compile(r"(?<=path: )\.\./\S+")


def write_staged_recipes(target: Path) -> list[Path]:
    """Writes the folders of all recipes into `target`/recipes, a new folder, and returns them.

    What a recipe takes from the checkout is copied into its folder. Raises CiError where `target`/recipes exists.
    """
    recipes = target / "recipes"
    if recipes.exists():
        raise CiError(f"{recipes} exists, expected a new folder: remove it, or name another one")
    target.mkdir(parents=True, exist_ok=True)
    with replacing(recipes) as partial:
        for name in SOURCES:
            _write_recipe(RECIPES / name, partial / name)
    return sorted(recipes.iterdir())


def _write_recipe(folder: Path, target: Path) -> None:
    """Copies a recipe's folder, and into it what its sources name outside of it."""
    shutil.copytree(folder, target)
    recipe = target / "recipe.yaml"
    text = recipe.read_text()
    for path in _OUTSIDE.findall(text):
        source = folder / path
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target / source.name)
    recipe.write_text(_OUTSIDE.sub(lambda match: Path(match[0]).name, text))
