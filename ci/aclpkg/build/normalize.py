# SPDX-License-Identifier: MIT
"""Makes a package the same wherever, whenever and by whomever it was built.

rattler-build writes down when and where it built, and on what kernel. None of that is
the package's. It leaves out sources that are files of a checkout: they are added, so that
ci/rebuild.sh needs nothing but the package.
"""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..base import archives
from ..base.hashes import sha256
from ..base.messages import CiError
from . import symbol_floors

# Where a package keeps the sources that its recipe takes from the checkout, and the recipe with all that was chosen.
SOURCES = "info/recipe/sources"
RENDERED_RECIPE = "info/recipe/rendered_recipe.yaml"


@dataclass(frozen=True)
class BuiltPackage:
    """A package, and what is in it.

    path: the .conda file. index: its info/index.json. recipe: its rendered recipe. tree: the folder with its files.
    """

    path: Path
    index: dict[str, Any]
    recipe: dict[str, Any]
    tree: Path

    @cached_property
    def sha256(self) -> str:
        return sha256(self.path)


def read_package(path: Path, tree: Path) -> BuiltPackage:
    """A package, unpacked into the folder `tree`."""
    archives.unpack_package(path, tree)
    return _read_tree(path, tree)


def _read_tree(path: Path, tree: Path) -> BuiltPackage:
    index = json.loads((tree / "info/index.json").read_text())
    return BuiltPackage(path, index, yaml.safe_load((tree / RENDERED_RECIPE).read_text()), tree)


def normalize(
    package: Path, tree: Path, epoch: int, places: dict[str, str], sources: list[tuple[Path, str]]
) -> BuiltPackage:
    """Writes `package`, a .conda file, anew, without a trace of the machine that built it.

    tree: a folder for what is in it. epoch: the time that every entry gets, in seconds. places: what is
    written instead of this machine's paths and addresses. sources: files and folders of the checkout, and
    their paths in it. Raises CiError when a path of this machine is left, and when the binaries need more
    than the recipe promises.
    """
    archives.unpack_package(package, tree)
    if "prefix_placeholder" in (tree / "info/paths.json").read_text():
        raise CiError(f"{package.name} has files with the prefix in them, expected none: write them relative to it")
    scrub(tree, epoch, places)
    apply_symbol_floors(tree, package.name)
    embed_sources(tree, sources)
    return repack(tree, package, epoch)


def scrub(tree: Path, epoch: int, places: dict[str, str]) -> None:
    """Takes out of an unpacked package's metadata what tells when and where it was built."""
    for file in (tree / "info/about.json", tree / RENDERED_RECIPE):
        text = file.read_text()
        for place in sorted(places, key=len, reverse=True):
            text = text.replace(f"{place}/", f"{places[place]}/").replace(place, places[place])
        file.write_text(text)
    _change_index(tree, timestamp=epoch * 1000)
    recipe = yaml.safe_load((tree / RENDERED_RECIPE).read_text())
    configuration = recipe["build_configuration"]
    del configuration["directories"], configuration["timestamp"]
    for platform in ("host_platform", "build_platform"):
        del configuration[platform]["virtual_packages"]
    # To what stands beside the recipe's folder in a checkout.
    for link in [file for file in (tree / "info/recipe").iterdir() if file.is_symlink()]:
        link.unlink()
    recipe["recipe"]["build"].get("script", {}).get("env", {}).pop("CCACHE_DIR", None)
    (tree / RENDERED_RECIPE).write_text(yaml.safe_dump(recipe, sort_keys=False, width=120))


def apply_symbol_floors(tree: Path, package: str) -> None:
    """Makes an unpacked package depend on the oldest C library and C++ runtime that its binaries run with."""
    depends = json.loads((tree / "info/index.json").read_text())["depends"]
    _change_index(tree, depends=symbol_floors.depends_with_floors(depends, tree, package))


def _change_index(tree: Path, **entries: Any) -> None:
    file = tree / "info/index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}, indent=2))


def embed_sources(tree: Path, sources: list[tuple[Path, str]]) -> None:
    """Adds files and folders of the checkout to an unpacked package, under their paths in the checkout."""
    for source, path in sources:
        target = tree / SOURCES / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def repack(tree: Path, package: Path, epoch: int) -> BuiltPackage:
    """Writes the .conda file of an unpacked package."""
    archives.pack_package(tree, package, epoch)
    return _read_tree(package, tree)
