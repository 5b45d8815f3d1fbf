# SPDX-License-Identifier: MIT
"""Whether a package can take the place of the last published one of its version."""

import filecmp
import re
import subprocess
import tempfile
from pathlib import Path

from ..base import archives
from ..base.messages import CiError, log

# abidiff's exit status is a sum of these: usage error or failure 1 and 2, a change 4, an incompatible one 8.
FAILED, INCOMPATIBLE = 1 | 2, 8


def check(package: Path, published: Path) -> None:
    """Raises CiError when `package` breaks what was built against the last published build of its version.

    published: the folder with the published packages. Compared are the exported symbols of
    every shared library, by abidiff, and the installed headers, which hold the layouts
    and for one version of ACL are always the same.
    """
    last = _last(package, published)
    if not last:
        return
    log(f"comparing the ABI of {package.name} with {last.name}")
    with tempfile.TemporaryDirectory() as name:
        old, new = Path(name) / "old", Path(name) / "new"
        archives.unpack_package(last, old)
        archives.unpack_package(package, new)
        broken = [*_broken_libraries(old, new), *_changed_headers(old, new)]
    if broken:
        raise CiError(
            f"{package.name} is no replacement for {last.name}, which has the same version:\n"
            + "\n".join(broken)
            + "\nraise the version in the recipe"
        )


def _last(package: Path, published: Path) -> Path | None:
    """The newest published build with the same version, microarchitecture and the like."""
    others = [other for other in published.glob("[!.]*.conda") if other.name != package.name]
    kin = [other for other in others if _kind(other) == _kind(package)]
    return max(kin, key=lambda other: other.stat().st_mtime, default=None)


def _kind(package: Path) -> str:
    """The file's name without the hash of its variant and the build number."""
    return re.sub(r"_h[0-9a-f]{7}_\d+\.conda$", "", package.name)


def _libraries(root: Path) -> dict[str, Path]:
    return {str(f.relative_to(root)): f for f in root.rglob("*.so*") if f.is_file() and not f.is_symlink()}


def _broken_libraries(old: Path, new: Path) -> list[str]:
    before, after = _libraries(old), _libraries(new)
    broken = [f"{name} is gone" for name in sorted(before.keys() - after.keys())]
    for name in sorted(before.keys() & after.keys()):
        words: list[str | Path] = ["abidiff", "--no-show-locs", "--no-added-syms", before[name], after[name]]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode & FAILED:
            raise CiError(f"abidiff cannot compare {name}: {done.stderr.strip()[-500:]}")
        if done.returncode & INCOMPATIBLE:
            broken.append(f"{name}:\n{done.stdout.strip()[:2000]}")
    return broken


def _changed_headers(old: Path, new: Path) -> list[str]:
    headers = sorted(f.relative_to(old) for f in (old / "include").rglob("*") if f.is_file())
    changed = [h for h in headers if not (new / h).is_file() or not filecmp.cmp(old / h, new / h, shallow=False)]
    return [f"{header} has changed or is gone" for header in changed]
