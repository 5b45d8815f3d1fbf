# SPDX-License-Identifier: MIT
"""Conda prefixes for linux-aarch64, solved and installed from channels."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rattler import (
    BuildString,
    Channel,
    Gateway,
    GenericVirtualPackage,
    MatchSpec,
    PackageName,
    RepoDataRecord,
    Subdir,
    Version,
    install,
    solve,
)

from .files import replacing

PLATFORM = "linux-aarch64"


def virtual_packages(cpu: str | None, glibc: str = "2.36") -> list[GenericVirtualPackage]:
    """What a client on an AArch64 machine reports: Linux, its C library, and archspec's name of its CPU."""
    found = {"__unix": ("0", "0"), "__linux": ("6.1", "0"), "__glibc": (glibc, "0")}
    if cpu:
        found["__archspec"] = ("1", cpu)
    return [
        GenericVirtualPackage(PackageName(name), Version(version), BuildString(build))
        for name, (version, build) in found.items()
    ]


def resolve(
    channels: list[str], specs: list[str], cpu: str | None, glibc: str = "2.36", platform: str = PLATFORM
) -> list[RepoDataRecord]:
    """The packages that a client with CPU `cpu` would install for `specs`.

    Raises rattler's SolverError when nothing fits.
    """
    return asyncio.run(
        solve(
            [Channel(channel) for channel in channels],
            [MatchSpec(spec) for spec in specs],
            platforms=[Subdir(platform), Subdir("noarch")],
            virtual_packages=virtual_packages(cpu, glibc),
            gateway=Gateway(),
        )
    )


def create(
    target: Path, channels: list[str], specs: list[str], cpu: str | None, platform: str = PLATFORM
) -> list[RepoDataRecord]:
    """Installs what `resolve` finds into `target`, which appears when it is whole."""
    records = resolve(channels, specs, cpu, platform=platform)
    with replacing(target) as partial:
        install_records(records, partial, target, platform)
    return records


def activated_command(prefix: Path, words: Sequence[str | Path]) -> list[str]:
    """Returns the command that runs `words` with the variables that an activated `prefix` has."""
    script = 'export CONDA_PREFIX=$0; for file in "$0"/etc/conda/activate.d/*.sh; do source "$file"; done; exec "$@"'
    return ["bash", "-c", script, *map(str, (prefix, *words))]


def install_records(records: list[RepoDataRecord], folder: Path, target: Path, platform: str = PLATFORM) -> None:
    """Installs packages into `folder`, as a prefix that will be at `target`, which is written into files."""
    asyncio.run(
        install(
            records,
            target_prefix=folder,
            alternative_target_prefix=target,
            platform=Subdir(platform),
            show_progress=False,
        )
    )
