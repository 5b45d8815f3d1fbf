# SPDX-License-Identifier: MIT
"""The CPU: what builds for a microarchitecture need of it, and how many there are. Imports nothing but Python's own."""

import ctypes
import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

AT_HWCAP = 16
AT_HWCAP2 = 26

# What the kernel must report (arch/arm64/include/uapi/asm/hwcap.h), as
# (auxiliary vector entry, bit), for each microarchitecture that we build for.
_ARMV8_2A = {
    "atomics": (AT_HWCAP, 8),
    "fphp": (AT_HWCAP, 9),
    "asimdhp": (AT_HWCAP, 10),
    "asimdrdm": (AT_HWCAP, 12),
}
REQUIRED_FEATURES = {
    "armv8.2-a": _ARMV8_2A,
    "neoverse-v1": {
        **_ARMV8_2A,
        "jscvt": (AT_HWCAP, 13),
        "fcma": (AT_HWCAP, 14),
        "lrcpc": (AT_HWCAP, 15),
        "asimddp": (AT_HWCAP, 20),
        "sve": (AT_HWCAP, 22),
        "asimdfhm": (AT_HWCAP, 23),
        "ilrcpc": (AT_HWCAP, 26),
        "flagm": (AT_HWCAP, 27),
        "svei8mm": (AT_HWCAP2, 9),
        "svebf16": (AT_HWCAP2, 12),
        "i8mm": (AT_HWCAP2, 13),
        "bf16": (AT_HWCAP2, 14),
    },
}


def missing_features(microarchitecture: str) -> list[str]:
    """Returns the features that builds for `microarchitecture` need and this CPU lacks.

    Raises KeyError for a microarchitecture that we do not build for.
    """
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes = [ctypes.c_ulong]
    getauxval.restype = ctypes.c_ulong
    return [
        name for name, (entry, bit) in REQUIRED_FEATURES[microarchitecture].items() if not getauxval(entry) >> bit & 1
    ]


def usable_cpus(root: Path = Path("/")) -> int:
    """Returns how many CPUs this process can keep busy: those it may run on, or fewer by a cgroup's quota.

    A container's quota is a cgroup's. A part of a CPU counts as one.

    Args:
        root: Where /proc and /sys are.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        return min([allowed, *(math.ceil(quota) for quota in _quotas(root))])
    except OSError:  # a system without cgroups
        return allowed


def _quotas(root: Path) -> Iterator[float]:
    """The CPUs of every quota that holds for this process: its own cgroups' and those of the ones around them."""
    paths = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = PurePosixPath(path)
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        place, what = line.split(" - ")
        kind, _, options = what.split(maxsplit=2)
        if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        # A container may see no more of the hierarchy than its own cgroup.
        top, mount = place.split()[3:5]
        own = paths[kind].relative_to(top) if paths[kind].is_relative_to(top) else PurePosixPath()
        for group in (own, *own.parents):
            yield from _quota(root / mount.lstrip("/") / group)


def _quota(group: Path) -> Iterator[float]:
    """The CPUs of a cgroup's quota, if it has one."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    except OSError:
        return
    if quota != "max" and int(quota) > 0:
        yield int(quota) / int(period)
