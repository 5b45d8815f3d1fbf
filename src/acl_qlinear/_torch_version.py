# SPDX-License-Identifier: MIT
"""Which PyTorch a build runs with: the one minor that it was built for, or every one since.

`build` is acl_qlinear._build: `doctor` has it under another name.
"""

from typing import Any


def built_for(build: Any) -> str:
    """Returns "2.9", or "2.10 and later"."""
    return f"{build.TORCH_MINOR}{' and later' if build.STABLE_ABI else ''}"


def conda_spec(build: Any) -> str:
    """Returns "pytorch=2.9", or "pytorch>=2.10"."""
    return f"pytorch{'>=' if build.STABLE_ABI else '='}{build.TORCH_MINOR}"


def minor_of(version: str) -> str:
    """Returns "2.9" for "2.9.1+cpu"."""
    return ".".join(version.split(".")[:2])


def fits(build: Any, version: str) -> bool:
    """Whether a PyTorch, by its __version__, is one that the build runs with."""
    ours, theirs = ([int(part) for part in minor_of(text).split(".")] for text in (build.TORCH_MINOR, version))
    return theirs >= ours if build.STABLE_ABI else theirs == ours
