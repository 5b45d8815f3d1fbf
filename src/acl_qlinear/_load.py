# SPDX-License-Identifier: MIT
"""Loads the operators, or says which of the possible causes keeps it from that."""

import ctypes
import platform
from pathlib import Path

import torch

from . import _build, _torch_version
from ._cpu import missing_features


def load() -> None:
    """Registers torch.ops.acl_qlinear.

    Raises ImportError, with the cause and the fix, where the CPU or PyTorch is
    not the one that this package was built for.
    """
    if platform.machine() != "aarch64":
        raise ImportError(f"acl_qlinear is for AArch64, and this machine is {platform.machine()}")
    # Before anything of ours is mapped: its first instruction may be one too many.
    if missing := missing_features(_build.MICROARCHITECTURE):
        raise ImportError(
            f"this acl_qlinear was built for {_build.MICROARCHITECTURE}, and this CPU lacks "
            f"{', '.join(missing)}; install the build for every Armv8.2-A CPU: "
            'conda install "acl-qlinear=*=*armv8_2a*"'
        )
    if not _torch_version.fits(_build, torch.__version__):
        raise ImportError(
            f"this acl_qlinear was built for PyTorch {_torch_version.built_for(_build)}, and PyTorch "
            f"{torch.__version__} is installed; install the build that fits: "
            f'conda install acl-qlinear "pytorch={_torch_version.minor_of(torch.__version__)}"'
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
    used = Path(arm_compute_path().decode())
    # By its place: PyTorch's private copy may have the same name.
    is_theirs = Path(torch.__file__).resolve().parent in used.resolve().parents
    if is_theirs or not used.name.startswith("libarm_compute.so"):
        raise ImportError(
            f"acl_qlinear would use {used} instead of the libarm_compute.so that it was built with: something "
            "loaded that library, PyTorch's private copy, for everybody (RTLD_GLOBAL); unset "
            "TORCH_USE_RTLD_GLOBAL, and leave sys.setdlopenflags() alone before `import torch`"
        )
