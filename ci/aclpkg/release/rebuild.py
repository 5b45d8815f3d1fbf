"""Builds a package again, from the recipe and the sources inside it."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import yaml

from ..base import archives
from ..base.messages import CiError
from ..base.paths import CACHE
from ..base.pins import VARIANTS
from ..build import normalize, packages


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
        root = Path(name)
        archives.unpack_package(package, root)
        recipe, inside = root / "info/recipe", root / normalize.SOURCES
        if not inside.is_dir():
            raise CiError(f"{package.name} has no {normalize.SOURCES}: it was not built by ci/build.sh")
        index = json.loads((root / "info/index.json").read_text())
        # As in the checkout, so that the recipe finds its sources.
        tree = root / "checkout"
        shutil.copytree(inside, tree)
        sources = [(tree / path, path) for path in sorted(map(str, _sources(recipe)))]
        home = tree / "recipe" / index["name"]
        ours = shutil.ignore_patterns("sources", "rendered_recipe.yaml", "variant_config.yaml")
        shutil.copytree(recipe, home, ignore=ours)
        row = yaml.safe_load((recipe / "variant_config.yaml").read_text())
        row = {key: str(value) for key, value in row.items() if key in VARIANTS}
        # Another folder than ci/build.sh has, and always the same one, for ccache.
        output = CACHE / "build-again" / index["name"]
        return packages.build_package(
            home, row, sources, channel, upstream, target, output, ccache, epoch=index["timestamp"] // 1000
        )


def _sources(recipe: Path) -> list[Path]:
    """The sources of a recipe that are in the checkout, by their paths there."""
    sources = yaml.safe_load((recipe / "rendered_recipe.yaml").read_text())["finalized_sources"]
    place = Path("recipe") / "NAME"
    return [Path(os.path.normpath(place / source["path"])) for source in sources if "path" in source]
