"""The pins in recipe/variants.yaml."""

from datetime import UTC, datetime
from typing import Any

import yaml

from .messages import CiError
from .paths import ROOT

VARIANTS: dict[str, list] = yaml.safe_load((ROOT / "recipe/variants.yaml").read_text())
# The time that packages carry, whenever they are built, in seconds.
EPOCH = int(datetime.fromisoformat(VARIANTS["source_date"][0]).replace(tzinfo=UTC).timestamp())
# What the tables compare with, the newest pinned PyTorch, and on what kinds of layers.
TORCH = VARIANTS["pytorch"][-1]


def rows(*keys: str) -> list[tuple[Any, ...]]:
    """The values of zipped keys, row by row: rows("pytorch", "onednn")."""
    return list(zip(*(VARIANTS[key] for key in keys), strict=True))


def chosen(**wanted: str) -> dict[str, list]:
    """The variants with only the rows where each key has the wanted value.

    Keys that are zipped with a wanted one keep the same row. Raises CiError for a
    value that is not pinned.
    """
    result = {key: list(values) for key, values in VARIANTS.items()}
    for key, value in wanted.items():
        if value not in result[key]:
            raise CiError(f"{key} {value} is not in recipe/variants.yaml, which has {', '.join(map(str, result[key]))}")
        row = result[key].index(value)
        zipped: list[str] = next((group for group in VARIANTS["zip_keys"] if key in group), [key])
        for other in zipped:
            result[other] = [result[other][row]]
    return result
