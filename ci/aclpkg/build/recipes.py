# SPDX-License-Identifier: MIT
"""The recipes in recipe/, rendered for rows of the variants."""

import platform
from pathlib import Path
from typing import Any

import yaml
from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig
from rattler_build.render import RenderedVariant

from ..base import environment
from ..base.paths import ROOT
from ..base.pins import chosen
from ..inputs import debian
from ..inputs.bootstrap import SUBDIR

RECIPES = ROOT / "recipe"
# What a recipe's package is made from, besides the recipe itself and the variants.
SOURCES = {
    "acl-microarch": [ROOT / "src/LICENSE"],
    "arm-compute-library": [ROOT / "build_acl.sh", RECIPES / "variants.yaml", RECIPES / "debian.yaml"],
    "acl-qlinear": [ROOT / "src"],
}


def debian_source(address: str, sha256: str) -> Path | None:
    """ACL's source, where its address is in Debian: debian:SUITE/FILE."""
    if not address.startswith("debian:"):
        return None
    return debian.exact_source(address, sha256)


def render(folder: Path, variants: dict[str, list]) -> list[RenderedVariant]:
    """What the recipe in `folder` makes of `variants`, as conda-build renders it."""
    target, machine = environment.PLATFORM, SUBDIR[platform.machine()]
    platforms = PlatformConfig(target_platform=target, build_platform=machine, host_platform=target)
    text = yaml.safe_dump({**variants, "target_platform": [target], "host_platform": [target]})
    recipe = Stage0Recipe.from_file(folder / "recipe.yaml")
    return list(recipe.render(VariantConfig.from_yaml(text), RenderConfig(platform=platforms)))


def packages(name: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
    """The packages that a recipe makes of the wanted rows: what it uses of its row, and its build string."""
    rendered = render(RECIPES / name, chosen(**wanted))
    return [(own_row(one.variant), str(one.recipe.build.string)) for one in rendered]


def own_row(variant: dict[str, Any]) -> dict[str, str]:
    """A package's variant without what rattler-build adds to it."""
    added = ("target_platform", "build_platform", "host_platform")
    return {key: str(value) for key, value in variant.items() if key not in added and not key.startswith("__")}
