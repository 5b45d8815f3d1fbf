"""ci/rebuild.sh: builds a package again, from the recipe and the sources inside it, and compares."""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from . import build, packages, seal
from .attest import sha256
from .cache import CACHE, CiError, command, say


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
        seal.unpack(package, root)
        recipe, inside = root / "info/recipe", root / seal.SOURCES
        if not inside.is_dir():
            raise CiError(f"{package.name} has no {seal.SOURCES}: it was not built by ci/build.sh")
        index = json.loads((root / "info/index.json").read_text())
        # As in the checkout, so that the recipe finds its sources.
        tree = root / "checkout"
        shutil.copytree(inside, tree)
        sources = [(tree / path, path) for path in sorted(map(str, _sources(recipe)))]
        home = tree / "recipe" / index["name"]
        ours = shutil.ignore_patterns("sources", "rendered_recipe.yaml", "variant_config.yaml")
        shutil.copytree(recipe, home, ignore=ours)
        row = yaml.safe_load((recipe / "variant_config.yaml").read_text())
        row = {key: str(value) for key, value in row.items() if key in packages.VARIANTS}
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="ci/rebuild.sh", description=__doc__)
    parser.add_argument("package", type=Path, metavar="PACKAGE", help="a .conda file in a channel of ours")
    parser.add_argument(
        "--channel", action="append", default=[], metavar="URL", help="as for ci/build.sh; may be repeated"
    )
    parser.add_argument("--no-ccache", action="store_true", help="compile everything, whatever was compiled before")
    options = parser.parse_args()
    if not options.package.is_file() or options.package.suffix != ".conda":
        raise CiError(f"PACKAGE is {options.package}, expected a .conda file")

    upstream = build.upstream_channels(options.channel)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        work = Path(name)
        ccache = work / "ccache" if options.no_ccache else CACHE / "ccache"
        say(f"building {options.package.name} again")
        again = rebuild(options.package, upstream, work, ccache)
        old, new = sha256(options.package), sha256(again)
        if old == new:
            print(f"equal: {options.package.name}, sha256 {new}")
            return
        print(f"different: {options.package.name}\n  given    sha256 {old}\n  rebuilt  sha256 {new}", flush=True)
        subprocess.run(["diffoscope", "--no-progress", "--text-color=never", options.package, again], check=False)
        raise CiError(f"{options.package.name} cannot be built again as it is")


if __name__ == "__main__":
    command(main)
