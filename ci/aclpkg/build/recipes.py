"""The recipes in recipe/, rendered for rows of the variants."""

import platform
import shutil
from pathlib import Path

import yaml
from rattler_build import PlatformConfig, RenderConfig, RenderedVariant, Stage0Recipe, VariantConfig

from ..base import environment
from ..base.paths import ROOT
from ..base.pins import VARIANTS, chosen
from ..inputs import debian
from ..inputs.bootstrap import SUBDIR

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
    return debian.exact_source(address, sha256)


def render(name: str, **wanted: str) -> list[RenderedVariant]:
    """The packages that a recipe makes of the wanted rows of the variants."""
    variants = chosen(**wanted)
    zip_keys = variants.pop("zip_keys")
    text = yaml.safe_dump({**{k: [str(v) for v in values] for k, values in variants.items()}, "zip_keys": zip_keys})
    recipe = Stage0Recipe.from_file(RECIPES / name / "recipe.yaml")
    machine = SUBDIR[platform.machine()]
    config = RenderConfig(
        platform=PlatformConfig(
            target_platform=environment.PLATFORM, build_platform=machine, host_platform=environment.PLATFORM
        )
    )
    return recipe.render(VariantConfig.from_yaml(text), config)
