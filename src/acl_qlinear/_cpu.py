# SPDX-License-Identifier: MIT
"""What builds for a microarchitecture need of the CPU. Imports nothing but Python's own."""

import ctypes

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
