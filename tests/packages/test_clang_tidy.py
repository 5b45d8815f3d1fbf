# SPDX-License-Identifier: MIT
"""What tests/lint leaves out: the sources that take ACL's or PyTorch's headers, which the prefixes have."""

from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import SITE_PACKAGES, TORCH

from ..clang_tidy import complaints
from ..conftest import MICROARCHITECTURES, TORCHES

OF_TORCH = [str(file.relative_to(ROOT)) for file in ROOT.glob("src/csrc/torch/**/*.cpp")]


@pytest.mark.parametrize("source", ["src/csrc/kernels/acl_kernels.cpp", *sorted(OF_TORCH)])
def test_clang_tidy(installed: Callable[[str, str], Path], source: str) -> None:
    is_stable = "/stable/" in source
    home = installed(MICROARCHITECTURES[-1], TORCHES[-1] if is_stable else TORCH)
    torch = home / SITE_PACKAGES / "torch/include"
    includes = [home / "include/arm-compute-library", torch, torch / "torch/csrc/api/include"]
    # PyTorch 2.6's headers are C++17.
    standard = "c++17" if "/torch/" in source else "c++20"
    assert not complaints(source, standard, includes, *["ACL_QLINEAR_STABLE_ABI"] * is_stable)
