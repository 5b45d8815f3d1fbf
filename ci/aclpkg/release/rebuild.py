# SPDX-License-Identifier: MIT
"""Builds a package again, from the recipe and the sources inside it."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ..base.messages import CiError
from ..base.paths import CACHE
from ..build import normalize, packages, recipes


def rebuild(package: Path, upstream: list[str], target: Path, ccache: Path) -> Path:
    """Builds `package` again into `target`/SUBDIR/, and returns the new file.

    upstream: the channels with everything that is not ours; ours is the one that the
    package is in. Raises CiError where that is not a channel, or the package has no
    recipe or was not built by ci/build.sh.
    """
    channel = package.resolve().parents[1]
    if not list(channel.glob("*/repodata.json")):
        raise CiError(f"{channel} has no repodata.json: give the package as it is in a channel of ours")
    with tempfile.TemporaryDirectory() as name:
        given = normalize.read_package(package, Path(name) / "given")
        recipe, inside = given.tree / "info/recipe", given.tree / normalize.SOURCES
        if not inside.is_dir():
            raise CiError(f"{package.name} has no {normalize.SOURCES}: it was not built by ci/build.sh")
        # As in the checkout, so that the recipe finds its sources.
        checkout = Path(name) / "checkout"
        shutil.copytree(inside, checkout)
        folder = checkout / "recipe" / given.index["name"]
        ours = shutil.ignore_patterns("sources", "rendered_recipe.yaml", "variant_config.yaml")
        shutil.copytree(recipe, folder, ignore=ours)
        row = recipes.own_row(yaml.safe_load((recipe / "variant_config.yaml").read_text()))
        sources = [(checkout / path, path) for path in sorted(_own_sources(given.recipe))]
        again = packages.Recipe(folder, row, sources)
        # Another folder than ci/build.sh has. Its path is as long, so that ccache takes both for the same.
        output = CACHE / "again" / again.place
        epoch = given.index["timestamp"] // 1000
        with packages.built_package(again, channel, upstream, output, ccache, epoch) as built:
            return packages.move_package(built.path, target)


def _own_sources(recipe: dict[str, Any]) -> list[str]:
    """The sources of a rendered recipe that are in the checkout, by their paths there."""
    place = Path("recipe") / "NAME"
    return [os.path.normpath(place / source["path"]) for source in recipe["finalized_sources"] if "path" in source]
