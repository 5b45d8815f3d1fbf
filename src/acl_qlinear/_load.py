"""Loads the operators, or says which of the possible causes keeps it from that."""

import ctypes
import platform
from pathlib import Path

import torch

from . import _build

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
    """The features that builds for `microarchitecture` need and this CPU lacks.

    Raises KeyError for a microarchitecture that we do not build for.
    """
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes = [ctypes.c_ulong]
    getauxval.restype = ctypes.c_ulong
    return [
        name
        for name, (entry, bit) in REQUIRED_FEATURES[microarchitecture].items()
        if not getauxval(entry) >> bit & 1
    ]


def load() -> None:
    """Registers torch.ops.acl_qlinear.

    Raises ImportError, with the cause and the fix, where the CPU or PyTorch is
    not the one that this package was built for.
    """
    if platform.machine() != "aarch64":
        raise ImportError(
            f"acl_qlinear is for AArch64, and this machine is {platform.machine()}"
        )
    # Before anything of ours is mapped: its first instruction may be one too many.
    if missing := missing_features(_build.MICROARCHITECTURE):
        raise ImportError(
            f"this acl_qlinear was built for {_build.MICROARCHITECTURE}, and this CPU lacks "
            f"{', '.join(missing)}; install the build for every Armv8.2-A CPU: "
            'conda install "acl-qlinear=*=*armv8_2a*"'
        )
    torch_minor = ".".join(torch.__version__.split(".")[:2])
    if torch_minor != _build.TORCH_MINOR:
        raise ImportError(
            f"this acl_qlinear was built for PyTorch {_build.TORCH_MINOR}, and PyTorch "
            f"{torch.__version__} is installed; install the build that fits: "
            f'conda install acl-qlinear "pytorch={torch_minor}"'
        )
    library = Path(__file__).with_name("_C.so")
    try:
        torch.ops.load_library(library)
    except OSError as error:
        # PyTorch 2.9 wraps the loader's words in its own.
        raise ImportError(
            f"{library} cannot be loaded: {error.__cause__ or error}; the package arm-compute-library "
            f"{_build.ACL_VERSION} must be in the same environment: "
            "conda install --force-reinstall acl-qlinear arm-compute-library"
        ) from error
    arm_compute_path = ctypes.CDLL(str(library)).acl_qlinear_arm_compute_path
    arm_compute_path.restype = ctypes.c_char_p
    used = arm_compute_path().decode()
    if not Path(used).name.startswith("libarm_compute.so"):
        raise ImportError(
            f"acl_qlinear would use {used} instead of the libarm_compute.so that it was built with: something "
            "loaded that library, PyTorch's private copy, for everybody (RTLD_GLOBAL); unset "
            "TORCH_USE_RTLD_GLOBAL, and leave sys.setdlopenflags() alone before `import torch`"
        )
