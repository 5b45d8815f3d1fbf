# SPDX-License-Identifier: MIT
"""Loads the operators, or says which of the possible causes keeps it from that."""

import ctypes
import platform
import tempfile
from pathlib import Path

import torch

from . import _build, _builds
from ._cpu import missing_features


def _select() -> _builds.Build:
    if platform.machine() != "aarch64":
        raise ImportError(f"acl_qlinear is for AArch64, and this machine is {platform.machine()}")
    return _builds.select(_build, torch.__version__, missing_features)


BUILD = _select()


def _load_beside_torch(library: Path) -> None:
    """Loads `library` where PyTorch's libraries have a version in their names: Debian's libtorch_cpu.so.2.14, for one.

    `library` needs libtorch_cpu.so, and the loader looks for it in the same folder. A link is enough: the loader
    knows what is loaded by its inode.
    """
    versioned = {
        name: file
        for file in _builds.mapped_files()
        for name in ("libtorch_cpu.so", "libc10.so")
        if Path(file).name.startswith(f"{name}.")
    }
    if not versioned:
        return
    with tempfile.TemporaryDirectory() as folder:
        ours = {file.name: file for file in library.parent.glob("*.so*")}
        for name, file in (ours | versioned).items():
            Path(folder, name).symlink_to(file)
        ctypes.CDLL(f"{folder}/{library.name}")


def load() -> None:
    """Registers torch.ops.acl_qlinear.

    Raises ImportError, with the cause and the fix, where the CPU or PyTorch is
    not the one that this package was built for.
    """
    # Before anything of ours is mapped: its first instruction may be one too many.
    if missing := missing_features(BUILD.microarchitecture):
        command = _builds.how_to_get_another_build(missing_features)
        fix = f"; install the build for every Armv8.2-A CPU: {command}" if command else f"; {_builds.FOR_WHOM}"
        raise ImportError(
            f"this acl_qlinear was built for {BUILD.microarchitecture}, and this CPU lacks {', '.join(missing)}{fix}"
        )
    if not BUILD.fits(torch.__version__):
        raise ImportError(
            f"this acl_qlinear was built for PyTorch {_builds.torch_minors(_build)}, and PyTorch "
            f"{torch.__version__} is installed; install the build that fits: "
            f"{_builds.how_to_get_torch(_build, torch.__version__)}"
        )
    library = Path(__file__).parent / BUILD.library
    try:
        _load_beside_torch(library)
        torch.ops.load_library(library)
    except OSError as error:
        # PyTorch 2.9 wraps the loader's words in its own.
        raise ImportError(
            f"{library} cannot be loaded: {error.__cause__ or error}; the libraries that it needs, Arm Compute Library "
            f"{_build.ACL_VERSION} among them, must be in the same environment: {_builds.how_to_install_again(_build)}"
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
