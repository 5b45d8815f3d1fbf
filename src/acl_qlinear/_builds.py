# SPDX-License-Identifier: MIT
"""Which build of this copy is used: a conda package has one, a wheel one for each microarchitecture and PyTorch.

`held` is always acl_qlinear._build, which CMake and ci/build.sh --wheel write: `doctor` has it under another name.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

FOR_WHOM = "it is for CPUs with Armv8.2-A or newer"


class Build(NamedTuple):
    """What a library was built for."""

    microarchitecture: str
    # A PyTorch, "2.9" for one; with LibTorch's stable ABI, later ones too.
    torch_minor: str
    stable_abi: bool
    # The library, from this folder.
    library: str

    def fits(self, version: str) -> bool:
        """Whether a PyTorch, by its __version__, is one that the build runs with."""
        ours, theirs = _numbers(self.torch_minor), _numbers(minor_of(version))
        return theirs >= ours if self.stable_abi else theirs == ours


def select(held: Any, version: str | None, missing_features: Callable[[str], list[str]]) -> Build:
    """Returns the build for this CPU and this PyTorch or, where none is, one that comes near.

    version: PyTorch's __version__; None where there is none. missing_features: _cpu's.
    """
    builds = [Build(*build) for build in held.BUILDS]
    # Those for the better CPU come last.
    ranks = [
        (-len(missing_features(build.microarchitecture)), bool(version and build.fits(version)), number)
        for number, build in enumerate(builds)
    ]
    return builds[ranks.index(max(ranks))]


def mapped_files() -> set[str]:
    """Returns what this process has mapped: libraries, by their paths, among other things."""
    lines = os.fsdecode(Path("/proc/self/maps").read_bytes()).splitlines()
    return {line.split(maxsplit=5)[-1].strip() for line in lines}


def minor_of(version: str) -> str:
    """Returns "2.9" for "2.9.1+cpu"."""
    return ".".join(version.split(".")[:2])


def _numbers(minor: str) -> list[int]:
    return [int(part) for part in minor.split(".")]


def torch_minors(held: Any) -> str:
    """Returns what the builds are for: "2.9", or "2.8, 2.9, 2.10 and later"."""
    minors = {f"{build[1]}{' and later' if build[2] else ''}": None for build in held.BUILDS}
    return ", ".join(minors)


def how_to_get_another_build(missing_features: Callable[[str], list[str]]) -> str | None:
    """Returns the command that brings the build for every Armv8.2-A CPU; None where this is not such a CPU."""
    return None if missing_features("armv8.2-a") else 'conda install "acl-qlinear=*=*armv8_2a*"'


def how_to_get_torch(held: Any, installed: str | None) -> str:
    """Returns the command that brings a PyTorch and a build that fit; installed: its __version__, if there is one."""
    _, oldest, stable_abi, _ = held.BUILDS[0]
    if held.IS_WHEEL:
        return f'pip install --upgrade "torch>={oldest}"'
    if installed:
        return f'conda install acl-qlinear "pytorch={minor_of(installed)}"'
    return f'conda install "pytorch{">=" if stable_abi else "="}{oldest}"'


def how_to_install_again(held: Any) -> str:
    """Returns the command that brings back files of the packages."""
    if held.IS_WHEEL:
        return "pip install --force-reinstall --no-deps acl-qlinear"
    return "conda install --force-reinstall acl-qlinear arm-compute-library"
