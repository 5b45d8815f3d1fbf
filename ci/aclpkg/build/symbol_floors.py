# SPDX-License-Identifier: MIT
"""The oldest C library and C++ runtime that the binaries in a package run with, from the symbols they use."""

from pathlib import Path

from ..base.elf import newest_symbol_versions
from ..base.messages import CiError

# The GCC whose libstdc++ first had GLIBCXX_3.4.N (GCC's manual of the C++ library, "ABI policy").
GLIBCXX = {
    21: 5,
    22: 6,
    23: 7,
    24: 7,
    25: 8,
    26: 9,
    27: 9,
    28: 10,
    29: 11,
    30: 12,
    31: 13,
    32: 13,
    33: 14,
    34: 15,
}
# What a client knows of each kind of symbol version.
PROVIDERS = {"GLIBC": "__glibc", "GLIBCXX": "libstdcxx", "GCC": "libgcc"}


def required_versions(root: Path) -> dict[str, str]:
    """The lowest version of __glibc, libstdcxx and libgcc that have the symbols that binaries below `root` use.

    Raises CiError for a version of libstdc++'s symbols that no GCC is known for.
    """
    files = [file for file in root.rglob("*.so*") if file.is_file() and not file.is_symlink()]
    found = newest_symbol_versions(files)
    floors = {PROVIDERS[kind]: version for kind, version in found.items() if kind in PROVIDERS}
    if "libstdcxx" in floors:
        newest = floors["libstdcxx"][-1]
        if newest not in GLIBCXX:
            known = f"3.4.{min(GLIBCXX)} to 3.4.{max(GLIBCXX)}"
            raise CiError(f"GLIBCXX_3.4.{newest} is used, expected {known}: add it to ci/aclpkg/build/symbol_floors.py")
        floors["libstdcxx"] = (GLIBCXX[newest],)
    return {name: ".".join(map(str, floor)) for name, floor in floors.items()}


def depends_with_floors(depends: list[str], root: Path, package: str) -> list[str]:
    """A package's dependencies, with the floors that its recipe promises replaced by those that it needs.

    Raises CiError where the binaries need more than is promised.
    """
    needed = required_versions(root)
    result = []
    for depend in depends:
        name, _, promised = depend.partition(" >=")
        floor = needed.get(name)
        if promised and floor:
            if _numbers(floor) > _numbers(promised.split(",")[0]):
                raise CiError(
                    f"{package} needs {name} {floor}, and its recipe promises to run with {promised}: build with an "
                    "older sysroot or compiler, or raise the promise in recipe/variants.yaml"
                )
            depend = ",".join([f"{name} >={floor}", *promised.split(",")[1:]])
        result.append(depend)
    return result


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
