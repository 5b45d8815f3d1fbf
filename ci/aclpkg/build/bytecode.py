# SPDX-License-Identifier: MIT
"""Compiles the Python files of a prefix: users cannot where it is read-only, and emulated it takes minutes."""

import subprocess
from pathlib import Path

from rattler.exceptions import SolverError

from ..base import environment
from ..base.cache import cached_dir
from ..base.messages import log
from ..inputs import emulator
from ..inputs.bootstrap import BUILD_ARCH, SUBDIR


def compile_files(prefix: Path, channels: list[str], optimize: int = 0) -> None:
    """Compiles all modules below `prefix`'s lib/, by a Python of the same minor that this machine runs.

    The Python is the prefix's own on AArch64, elsewhere one from `channels`. If they have none, or the
    prefix has no Python, nothing is compiled. optimize: 2 for `python -OO`, which reads no other bytecode.
    """
    library = next(prefix.glob("lib/python3.*"), None)
    if not library:
        return
    minor = library.name.removeprefix("python")
    try:
        python = (prefix if emulator.NATIVE else _python(minor, channels)) / "bin/python"
    except SolverError:
        log(f"{prefix} is not compiled: the channels have no Python {minor} for this machine")
        return
    # Packages come with files that no Python can compile: templates, and tests of syntax errors.
    words: list[str | Path] = [python, "-m", "compileall", "-qq", "-j", "0", "-o", str(optimize), library]
    subprocess.run(words, check=False, stdout=subprocess.DEVNULL)


def _python(minor: str, channels: list[str]) -> Path:
    machine = SUBDIR[BUILD_ARCH]

    def install(target: Path) -> None:
        environment.create(target / "prefix", channels, [f"python {minor}.*"], None, platform=machine)

    return cached_dir("native-python", [channels, minor, machine], install) / "prefix"
