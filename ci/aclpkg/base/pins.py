# SPDX-License-Identifier: MIT
"""The pins in recipe/variants.yaml."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml

from .messages import CiError
from .paths import ROOT

# What anybody can build from, and what is built here: Debian's source of ACL, where there is apt.
PUBLIC_VARIANTS: dict[str, list] = yaml.safe_load((ROOT / "recipe/variants.yaml").read_text())
DEBIAN_VARIANTS: dict[str, list] = yaml.safe_load((ROOT / "recipe/debian.yaml").read_text())
VARIANTS = PUBLIC_VARIANTS | (DEBIAN_VARIANTS if shutil.which("apt-get") else {})
# The time that packages carry, whenever they are built, in seconds.
EPOCH = int(datetime.fromisoformat(VARIANTS["source_date"][0]).replace(tzinfo=UTC).timestamp())
# The Python of the environments that are made here, and where its packages are in them.
PYTHON: str = VARIANTS["environment_python"][0]
SITE_PACKAGES = f"lib/python{PYTHON}/site-packages"


def rows(*keys: str) -> list[tuple[Any, ...]]:
    """The values of zipped keys, row by row: rows("pytorch", "onednn")."""
    return list(zip(*(VARIANTS[key] for key in keys), strict=True))


# The PyTorchs that there is a build for alone, and the newest of them, which the tables compare with.
ATEN_TORCHES = [minor for minor, abi in rows("pytorch", "pytorch_abi") if abi == "aten"]
TORCH = ATEN_TORCHES[-1]


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


@dataclass(frozen=True)
class Microarchitecture:
    """One that there are builds for.

    name: in build strings. variant: build_acl.sh's name. priority: builds with a higher one are
    preferred. emulated_cpus: what they are tried on, qemu's names. cpus: whose builds they are,
    archspec's names; empty where they run on every CPU.
    """

    name: str
    variant: str
    priority: int
    emulated_cpus: list[str]
    cpus: list[str]

    @property
    def archspec_cpu(self) -> str:
        """archspec's name of a CPU that gets this one's builds."""
        return self.emulated_cpus[0].replace("-", "_")

    def runs_on(self, cpu: str) -> bool:
        """Whether a CPU, by archspec's name, runs this one's builds."""
        return not self.cpus or cpu in self.cpus


MICROARCHITECTURES = {
    name: Microarchitecture(
        name,
        variant,
        int(priority),
        emulated.split(),
        [cpu for cpu, theirs in rows("cpu_name", "cpu_microarchitecture") if theirs == name],
    )
    for name, variant, priority, emulated in rows(
        "microarchitecture", "acl_variant", "microarchitecture_priority", "emulated_cpus"
    )
}
