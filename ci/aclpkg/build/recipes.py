# SPDX-License-Identifier: MIT
"""The recipes in recipe/, rendered for rows of the variants."""

import platform
import shutil
from pathlib import Path
from typing import Any

import yaml
from rattler_build import PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

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


def render(name: str, **wanted: str) -> list[tuple[dict[str, str], str]]:
    """The packages that a recipe makes of the wanted rows: what it uses of its row, and its build string."""
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
    rendered = recipe.render(VariantConfig.from_yaml(text), config)
    return [(own_row(one.variant), str(one.recipe.build.string)) for one in rendered]


def own_row(variant: dict[str, Any]) -> dict[str, str]:
    """A package's variant without what rattler-build adds to it."""
    added = ("target_platform", "build_platform", "host_platform")
    return {key: str(value) for key, value in variant.items() if key not in added and not key.startswith("__")}
