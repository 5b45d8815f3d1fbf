# SPDX-License-Identifier: MIT
"""What tests/lint leaves out: the sources that take ACL's or PyTorch's headers, which the prefixes have."""

from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import SITE_PACKAGES, TORCH, VARIANTS

from ..clang_tidy import complaints

SOURCES = ["src/csrc/kernels/acl_kernels.cpp", *(f"src/csrc/torch/{p.name}" for p in ROOT.glob("src/csrc/torch/*.cpp"))]


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_clang_tidy(installed: Callable[[str, str], Path], source: str) -> None:
    home = installed(VARIANTS["microarchitecture"][0], TORCH)
    torch = home / SITE_PACKAGES / "torch/include"
    includes = [home / "include/arm-compute-library", torch, torch / "torch/csrc/api/include"]
    # PyTorch 2.6's headers are C++17.
    assert not complaints(source, "c++17" if "/torch/" in source else "c++20", includes)
