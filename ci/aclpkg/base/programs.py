# SPDX-License-Identifier: MIT
"""The programs that the machine itself must have."""

import os
import shutil
import subprocess
from pathlib import Path

from .messages import CiError, log
from .processes import run

# By Debian's packages; it reads a .conda file with zipinfo and zstd.
DIFFOSCOPE = {"diffoscope": "diffoscope-minimal", "zipinfo": "unzip", "zstd": "zstd"}


def _is_there(name: str) -> bool:
    if name.startswith("/"):
        return Path(name).exists()
    if name.endswith(".pc"):
        words = ["pkg-config", "--exists", name.removesuffix(".pc")]
        return bool(shutil.which(words[0])) and subprocess.run(words, check=False).returncode == 0
    return shutil.which(name) is not None


def require_programs(programs: dict[str, str]) -> None:
    """Installs what is missing of `programs`, which maps each to its Debian package, with apt.

    A path stands for a package that has no program, NAME.pc for a library's development files.

    Raises CiError, which names what is missing, where that takes root or apt.
    """
    missing = [name for name in programs if not _is_there(name)]
    if not missing:
        return
    packages = [programs[name] for name in missing]
    if os.getuid() != 0 or not shutil.which("apt-get"):
        raise CiError(f"missing: {' '.join(missing)} (on Debian, as root: apt-get install {' '.join(packages)})")
    log(f"installing {' '.join(packages)}")
    run(["apt-get", "update", "-qq"])
    # The machine's own upgrades, or a person, may be at it.
    patient = ["-o", "DPkg::Lock::Timeout=600"]
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *patient, *packages]
    run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
