"""Builds the recipes into conda packages, with rattler-build."""

import os
import platform
import shutil
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import yaml
from rattler_build import (
    PlatformConfig,
    RenderConfig,
    RenderedVariant,
    Stage0Recipe,
    VariantConfig,
    build_recipes,
)

from . import attest, debian, seal
from .bootstrap import SUBDIR
from .cache import CACHE, ROOT, CiError, folder, locked, say, tree_hash
from .pins import EPOCH, VARIANTS, chosen
from .prefix import PLATFORM

RECIPES = ROOT / "recipe"
# What a recipe's package is made from, besides the recipe itself and the variants.
SOURCES = {
    "acl-microarch": [ROOT / "src/LICENSE"],
    "arm-compute-library": [ROOT / "build_acl.sh", RECIPES / "variants.yaml"],
    "acl-qlinear": [ROOT / "src"],
}


def acl_version() -> str:
    """The row of variants.yaml that is built here: the tested one, whose source needs apt, where there is apt."""
    from_debian, from_address = VARIANTS["acl_version"]
    return from_debian if shutil.which("apt-get") else from_address


def debian_source(address: str, sha256: str) -> Path | None:
    """ACL's source, where its address is in Debian: debian:SUITE/FILE."""
    if not address.startswith("debian:"):
        return None
    suite, file = address.removeprefix("debian:").split("/")
    return debian.source(suite, file.split("_")[0], sha256)


def render(name: str, **wanted: str) -> list[RenderedVariant]:
    """The packages that a recipe makes of the wanted rows of the variants."""
    variants = chosen(**wanted)
    zip_keys = variants.pop("zip_keys")
    text = yaml.safe_dump({**{k: [str(v) for v in values] for k, values in variants.items()}, "zip_keys": zip_keys})
    recipe = Stage0Recipe.from_file(RECIPES / name / "recipe.yaml")
    machine = SUBDIR[platform.machine()]
    config = RenderConfig(
        platform=PlatformConfig(target_platform=PLATFORM, build_platform=machine, host_platform=PLATFORM)
    )
    return recipe.render(VariantConfig.from_yaml(text), config)


def build(name: str, channel: Path, upstream: list[str], **wanted: str) -> list[Path]:
    """Builds a recipe's packages and copies them into `channel`, a folder that gets them whole.

    upstream: the channels with everything that is not ours. Packages are cached by
    all that goes into them.
    """
    inputs = {
        "recipe": tree_hash(RECIPES / name, RECIPES / "variants.yaml", *SOURCES[name]),
        "channels": upstream,
        "ours": _ours(name, channel),
        "wanted": wanted,
        "sealed": tree_hash(*(ROOT / f"ci/acl_ci/{name}.py" for name in ("seal", "floors", "attest"))),
    }
    sources = [(source, str(source.relative_to(ROOT))) for source in SOURCES[name]]
    built = []
    for variant in render(name, **wanted):
        row = {key: str(value) for key, value in variant.variant.items() if key in VARIANTS}

        def make(target: Path, row: dict[str, str] = row, label: str = f"{name} {variant.recipe.build.string}") -> None:
            say(f"building {label}")
            started = datetime.now(UTC)
            package = build_package(RECIPES / name, row, sources, channel, upstream, target, CACHE / "build" / name)
            attest.write(package, started, sources)

        home = folder(f"packages/{name}", [inputs, variant.recipe.build.string], make)
        for file in sorted(home.glob("*/*")):
            target = channel / file.parent.name / file.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
            if file.suffix == ".conda":
                built.append(target)
    return built


def build_package(
    recipe: Path, row: dict[str, str], sources: list[tuple[Path, str]], channel: Path, upstream: list[str],
    target: Path, output: Path, ccache: Path = CACHE / "ccache", epoch: int = EPOCH,
) -> Path:  # fmt: skip
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
    if (address := row.get("acl_source")) and (source := debian_source(address, row["acl_sha256"])):
        os.environ["ACL_SOURCE_URL"] = source.as_uri()
        places[source.as_uri().replace("+", "%2B")] = places[source.as_uri()] = address
    channels = [channel.as_uri(), *upstream]
    with locked(output.with_suffix(".lock")):
        shutil.rmtree(output, ignore_errors=True)
        try:
            package = _run_rattler_build(recipe, row, channels, output)
            seal.seal(package, epoch, places, sources)
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
                target_platform=PLATFORM,
                host_platform=PLATFORM,
                channel=channels,
                variant_config=[str(variant)],
                output_dir=output,
                no_build_id=True,
                # Tests of packages for AArch64 are run where they can be: ci/test.sh.
                test="skip",
                # Packed again by `seal`.
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
