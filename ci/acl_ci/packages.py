"""Builds the recipes into conda packages, with rattler-build."""

import os
import platform
import shutil
import warnings
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

from . import debian
from .bootstrap import SUBDIR
from .cache import CACHE, ROOT, CiError, folder, locked, say, tree_hash
from .pins import VARIANTS, chosen
from .prefix import PLATFORM

RECIPES = ROOT / "recipe"
# What a recipe's package is made from, besides the recipe itself and the variants.
SOURCES = {
    "acl-microarch": [ROOT / "src/LICENSE"],
    "arm-compute-library": [ROOT / "build_acl.sh"],
    "acl-qlinear": [ROOT / "src"],
}


def acl_version() -> str:
    """The row of variants.yaml that is built here: the tested one, whose source needs apt, where there is apt."""
    from_debian, from_address = VARIANTS["acl_version"]
    return from_debian if shutil.which("apt-get") else from_address


def debian_source(**wanted: str) -> Path | None:
    """ACL's source, where the wanted row of the variants takes it from Debian."""
    row = chosen(**wanted)
    source = row["acl_source"][0]
    if not source.startswith("debian:"):
        return None
    suite, file = source.removeprefix("debian:").split("/")
    return debian.source(suite, file.split("_")[0], row["acl_sha256"][0])


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
    os.environ["CCACHE_DIR"] = str(CACHE / "ccache")
    # The solver for the target must not ask this machine.
    os.environ["CONDA_OVERRIDE_ARCHSPEC"] = "neoverse_v1"
    os.environ["CONDA_OVERRIDE_GLIBC"] = "2.36"
    if name == "arm-compute-library" and (source := debian_source(**wanted)):
        os.environ["ACL_SOURCE_URL"] = source.as_uri()

    inputs = {
        "recipe": tree_hash(RECIPES / name, RECIPES / "variants.yaml", *SOURCES[name]),
        "channels": upstream,
        "ours": _ours(name, channel),
        "wanted": wanted,
    }
    built = []
    for variant in render(name, **wanted):
        label = f"{name} {variant.recipe.build.string}"

        def make(target: Path, variant: RenderedVariant = variant, label: str = label) -> None:
            say(f"building {label}")
            _build_one(name, variant, target, [channel.as_uri(), *upstream], label)

        home = folder(f"packages/{name}", [inputs, variant.recipe.build.string], make)
        for package in home.glob("*/*.conda"):
            target = channel / package.parent.name / package.name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(package, target)
            built.append(target)
    return built


def _build_one(name: str, variant: RenderedVariant, target: Path, channels: list[str], label: str) -> None:
    """Builds one package into `target`/SUBDIR/."""
    # Always the same place, since compilers' paths are part of what ccache compares.
    output = CACHE / "build" / name
    with locked(output.with_suffix(".lock")):
        shutil.rmtree(output, ignore_errors=True)
        _build_in(output, name, variant, target, channels, label)
        shutil.rmtree(output)


def _build_in(
    output: Path, name: str, variant: RenderedVariant, target: Path, channels: list[str], label: str
) -> None:
    row = target / "variant.yaml"
    row.write_text(yaml.safe_dump({key: [value] for key, value in variant.variant.items() if key in VARIANTS}))
    try:
        with warnings.catch_warnings():
            # variant.run_build() would do, but in py-rattler-build 0.73 it solves the target's
            # packages for the machine that builds.
            warnings.simplefilter("ignore", DeprecationWarning)
            build_recipes(
                [RECIPES / name / "recipe.yaml"],
                build_platform=SUBDIR[platform.machine()],
                target_platform=PLATFORM,
                host_platform=PLATFORM,
                channel=channels,
                variant_config=[str(row)],
                output_dir=output,
                no_build_id=True,
                # Tests of packages for AArch64 are run where they can be: ci/test.sh.
                test="skip",
            )
    except Exception as error:  # rattler-build's errors have no type in common
        logs = [log.read_text(errors="replace") for log in output.glob("bld/*/work/conda_build.log")]
        tail = "\n".join("".join(logs).splitlines()[-25:])
        raise CiError(f"{label} cannot be built: {error}\n{tail}") from error
    for package in output.glob("*/*.conda"):
        (target / package.parent.name).mkdir(exist_ok=True)
        package.rename(target / package.parent.name / package.name)
    row.unlink()


def _ours(name: str, channel: Path) -> str:
    """What of our own packages this one is built with."""
    return tree_hash(*sorted(channel.glob("*/arm-compute-library-*.conda"))) if name == "acl-qlinear" else ""
