"""Makes a package the same wherever, whenever and by whomever it was built.

rattler-build writes down when and where it built, and on what kernel. None of that is
the package's. It leaves out sources that are files of a checkout: they are added, so that
ci/rebuild.sh needs nothing but the package.
"""

import json
import shutil
import tempfile
from pathlib import Path

import yaml

from ..base import archives
from ..base.messages import CiError
from . import symbol_floors

# Where a package keeps the sources that its recipe takes from the checkout.
SOURCES = "info/recipe/sources"


def normalize(package: Path, epoch: int, places: dict[str, str], sources: list[tuple[Path, str]]) -> None:
    """Writes `package`, a .conda file, anew, without a trace of the machine that built it.

    epoch: the time that every entry gets, in seconds. places: what is written
    instead of this machine's paths and addresses. sources: files and folders of
    the checkout, and their paths in it. Raises CiError when a path of this
    machine is left, and when the binaries need more than the recipe promises.
    """
    with tempfile.TemporaryDirectory(dir=package.parent) as name:
        root = Path(name)
        archives.unpack_package(package, root)
        for file in [root / "info/about.json", root / "info/recipe/rendered_recipe.yaml"]:
            text = file.read_text()
            for place in sorted(places, key=len, reverse=True):
                text = text.replace(f"{place}/", f"{places[place]}/").replace(place, places[place])
            file.write_text(text)
        index = json.loads((root / "info/index.json").read_text())
        index["timestamp"] = epoch * 1000
        index["depends"] = symbol_floors.depends_with_floors(index["depends"], root, package.name)
        (root / "info/index.json").write_text(json.dumps(index, indent=2))
        _seal_recipe(root / "info/recipe/rendered_recipe.yaml")
        if "prefix_placeholder" in (root / "info/paths.json").read_text():
            raise CiError(f"{package.name} has files with the prefix in them, expected none: write them relative to it")
        for source, path in sources:
            target = root / SOURCES / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        archives.pack_package(root, package, epoch)


def _seal_recipe(file: Path) -> None:
    """Takes out of the rendered recipe what tells where it was built, not from what."""
    recipe = yaml.safe_load(file.read_text())
    configuration = recipe["build_configuration"]
    del configuration["directories"], configuration["timestamp"]
    for platform in ("host_platform", "build_platform"):
        del configuration[platform]["virtual_packages"]
    recipe["recipe"]["build"].get("script", {}).get("env", {}).pop("CCACHE_DIR", None)
    file.write_text(yaml.safe_dump(recipe, sort_keys=False, width=120))
