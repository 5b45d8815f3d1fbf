"""Builds the recipes into conda packages, with rattler-build."""

import os
import platform
import shutil
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rattler_build import build_recipes

from ..base import archives, environment
from ..base.cache import cached_dir
from ..base.files import holding_lock
from ..base.hashes import tree_hash
from ..base.messages import CiError, log
from ..base.paths import CACHE, ROOT
from ..base.pins import EPOCH, VARIANTS
from ..inputs.bootstrap import SUBDIR
from . import normalize, provenance, recipes, sbom, symbol_floors

# What decides, besides rattler-build, what is in a package and beside it.
CONTENT = (archives, normalize, symbol_floors, sbom, provenance)


def build_packages(name: str, channel: Path, upstream: list[str], **wanted: str) -> list[Path]:
    """Builds a recipe's packages and copies them into `channel`, a folder that gets them whole.

    upstream: the channels with everything that is not ours. Packages are cached by
    all that goes into them.
    """
    inputs = {
        "recipe": tree_hash(recipes.RECIPES / name, recipes.RECIPES / "variants.yaml", *recipes.SOURCES[name]),
        "channels": upstream,
        "ours": _ours(name, channel),
        "wanted": wanted,
        "normalized": tree_hash(*(Path(str(module.__file__)) for module in CONTENT)),
    }
    sources = [(source, str(source.relative_to(ROOT))) for source in recipes.SOURCES[name]]
    built = []
    for variant in recipes.render(name, **wanted):
        row = {key: str(value) for key, value in variant.variant.items() if key in VARIANTS}

        def make(target: Path, row: dict[str, str] = row, label: str = f"{name} {variant.recipe.build.string}") -> None:
            log(f"building {label}")
            started = datetime.now(UTC)
            package = build_package(
                recipes.RECIPES / name, row, sources, channel, upstream, target, CACHE / "build" / name
            )
            provenance.write(package, started, sources)

        home = cached_dir(f"packages/{name}", [inputs, variant.recipe.build.string], make)
        for file in sorted(home.glob("*/*")):
            target = channel / file.parent.name / file.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
            if file.suffix == ".conda":
                built.append(target)
    return built


def build_package(
    recipe: Path,
    row: dict[str, str],
    sources: list[tuple[Path, str]],
    channel: Path,
    upstream: list[str],
    target: Path,
    output: Path,
    ccache: Path = CACHE / "ccache",
    epoch: int = EPOCH,
) -> Path:
    """Builds a recipe for one row of the variants, seals the package, and moves it into `target`/SUBDIR/.

    sources: what of the checkout the recipe uses, and its paths there. channel: the
    folder with our own packages. output: the folder that rattler-build works in; compilers'
    paths are part of what ccache compares, so the same one is quicker. epoch: the
    package's time, in seconds.
    """
    os.environ.update(
        CCACHE_DIR=str(ccache),
        # The solver for the target must not ask this machine.
        CONDA_OVERRIDE_ARCHSPEC="neoverse_v1",
        CONDA_OVERRIDE_GLIBC="2.36",
    )
    places = {str(output): "/build", channel.as_uri(): "acl-qlinear"}
    places |= {address.rstrip("/"): "bootstrap" for address in upstream if address.startswith("file:")}
    if (address := row.get("acl_source")) and (source := recipes.debian_source(address, row["acl_sha256"])):
        os.environ["ACL_SOURCE_URL"] = source.as_uri()
        places[source.as_uri().replace("+", "%2B")] = places[source.as_uri()] = address
    channels = [channel.as_uri(), *upstream]
    with holding_lock(output.with_suffix(".lock")):
        shutil.rmtree(output, ignore_errors=True)
        try:
            package = _run_rattler_build(recipe, row, channels, output)
            normalize.normalize(package, epoch, places, sources)
            final = target / package.parent.name / package.name
            final.parent.mkdir(exist_ok=True)
            # Another file system, maybe.
            shutil.move(package, final)
        finally:
            _remove(output)
    return final


def _remove(output: Path) -> None:
    """Removes the folder of a build; where that has failed, rattler-build's threads may still be writing to it."""
    for _ in range(50):
        shutil.rmtree(output, ignore_errors=True)
        time.sleep(0.1)
        if not output.exists():
            return


def _run_rattler_build(recipe: Path, row: dict[str, str], channels: list[str], output: Path) -> Path:
    output.mkdir(parents=True)
    variant = output / "variant.yaml"
    variant.write_text(yaml.safe_dump({key: [value] for key, value in row.items()}))
    try:
        with warnings.catch_warnings():
            # RenderedVariant.run_build() would do, but in py-rattler-build 0.73 it solves the target's
            # packages for the machine that builds.
            warnings.simplefilter("ignore", DeprecationWarning)
            build_recipes(
                [recipe / "recipe.yaml"],
                build_platform=SUBDIR[platform.machine()],
                target_platform=environment.PLATFORM,
                host_platform=environment.PLATFORM,
                channel=channels,
                variant_config=[str(variant)],
                output_dir=output,
                no_build_id=True,
                # Tests of packages for AArch64 are run where they can be: ci/test.sh.
                test="skip",
                # Packed again by `normalize`.
                package_format="conda:1",
            )
    except Exception as error:  # rattler-build's errors have no type in common
        logs = [log.read_text(errors="replace") for log in output.glob("bld/*/work/conda_build.log")]
        tail = "\n".join("".join(logs).splitlines()[-25:])
        # rattler-build does not always say that a disk is full.
        free = shutil.disk_usage(output).free >> 20
        raise CiError(f"{recipe.name} cannot be built: {error} ({free} MiB are free in {output})\n{tail}") from error
    packages = list(output.glob("*/*.conda"))
    if len(packages) != 1:
        raise CiError(f"{recipe} makes {len(packages)} packages of {row}, expected 1")
    return packages[0]


def _ours(name: str, channel: Path) -> str:
    """What of our own packages this one is built with."""
    return tree_hash(*sorted(channel.glob("*/arm-compute-library-*.conda"))) if name == "acl-qlinear" else ""
