# SPDX-License-Identifier: MIT
"""Runs clang-tidy on C++ for AArch64."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from aclpkg.base.cache import cached_dir
from aclpkg.base.paths import ROOT
from aclpkg.inputs import debian
from aclpkg.inputs.bootstrap import BUILD_ARCH, DEB_ARCH

# Where the headers of GCC 12's C++ library are: in the package for cross compiling, and in the native one.
LIBSTDCXX = {
    "x86_64": ("libstdc++-12-dev-arm64-cross", "usr/aarch64-linux-gnu/include/c++/12", "aarch64-linux-gnu"),
    "aarch64": ("libstdc++-12-dev", "usr/include/c++/12", "../../aarch64-linux-gnu/c++/12"),
}
# All of what kernels are compiled for.
TARGET = ["--target=aarch64-linux-gnu", "-march=armv8.2-a+fp16+dotprod+i8mm+sve"]


@cache
def _headers() -> Path:
    """A folder with the headers of the C library, of C++'s and of GoogleTest."""
    debs = [
        *debian.packages("bullseye", "arm64", ["libc6-dev", "linux-libc-dev"]),
        *debian.packages("bookworm", DEB_ARCH[BUILD_ARCH], [LIBSTDCXX[BUILD_ARCH][0]]),
        *debian.packages("bookworm", "arm64", ["googletest"]),
    ]
    return cached_dir("headers", [str(deb) for deb in debs], lambda target: debian.unpack(debs, target))


def complaints(source: str, standard: str, includes: list[Path], *defines: str) -> str:
    """Returns what clang-tidy says of `source`, a path in the checkout; nothing where all is well.

    standard: of C++. includes: folders with headers of others. defines: macros, as NAME or NAME=VALUE.
    """
    root, (_, libstdcxx, own) = _headers(), LIBSTDCXX[BUILD_ARCH]
    others = [root / libstdcxx, root / libstdcxx / own, root / "usr/src/googletest/googletest/include", *includes]
    options = [
        f"-std={standard}",
        f"--sysroot={root}",
        "-nostdinc++",
        f"-I{ROOT}/src/csrc",
        *(f"-D{define}" for define in defines),
    ]
    options += [word for folder in others for word in ("-isystem", str(folder))]
    done = subprocess.run(
        [Path(sys.executable).with_name("clang-tidy"), "--quiet", source, "--", *TARGET, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""
