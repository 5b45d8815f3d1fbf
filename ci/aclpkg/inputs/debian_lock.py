# SPDX-License-Identifier: MIT
"""What ci/debian.lock pins: everything that is taken from Debian, for both kinds of build machines."""

from . import debian
from .bootstrap import BOOTSTRAP, DEB_ARCH
from .debian import DebianFile

# Packages that are unpacked as they are, for AArch64.
UNPACKED = ("emulated_root", "image_root", "module_systems", "googletest")


def pinned_names() -> dict[tuple[str, str], set[str]]:
    """Returns the names of packages, and of source packages, by release and architecture."""
    found: dict[tuple[str, str], set[str]] = {}
    unpacked = [*(BOOTSTRAP[name] for name in UNPACKED), *BOOTSTRAP["pythons"]]
    for spec in [*BOOTSTRAP["debian"], *({**spec, "kind": "target"} for spec in unpacked)]:
        names = spec["packages"]
        for machine, arch in DEB_ARCH.items():
            if spec["kind"] in ("tool", "both") or machine == "aarch64":
                place = found.setdefault((spec["suite"], arch), set())
                place.update(names[machine] if isinstance(names, dict) else names)
    sources = BOOTSTRAP["sources"]
    return {**found, (sources["suite"], "source"): set(sources["packages"])}


def write_debian_lock() -> int:
    """Pins what Debian offers today of all of it; returns how many files that are."""
    files: list[DebianFile] = []
    for (suite, arch), names in pinned_names().items():
        files += debian.apt_candidates(suite, arch, sorted(names))
    debian.write_lock(files)
    return len(files)
