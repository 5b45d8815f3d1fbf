# SPDX-License-Identifier: MIT
"""Compiles the Python files of a prefix: users cannot where it is read-only, and emulated it takes minutes."""

import subprocess
from pathlib import Path

from rattler.exceptions import SolverError

from ..base import environment
from ..base.cache import cached_dir
from ..base.messages import log
from ..base.pins import PYTHON
from ..inputs import emulator
from ..inputs.bootstrap import BUILD_ARCH, SUBDIR


def compile_files(prefix: Path, channels: list[str]) -> None:
    """Compiles all modules below `prefix`'s lib/, by a Python of the same minor that this machine runs.

    That is the prefix's own on AArch64, elsewhere one from `channels`. If they have none, nothing is compiled.
    """
    try:
        python = (prefix if emulator.NATIVE else _python(channels)) / "bin/python"
    except SolverError:
        log(f"{prefix} is not compiled: the channels have no Python {PYTHON} for this machine")
        return
    # Packages come with files that no Python can compile: templates, and tests of syntax errors.
    words: list[str | Path] = [python, "-m", "compileall", "-qq", "-j", "0", prefix / f"lib/python{PYTHON}"]
    subprocess.run(words, check=False, stdout=subprocess.DEVNULL)


def _python(channels: list[str]) -> Path:
    machine = SUBDIR[BUILD_ARCH]

    def install(target: Path) -> None:
        environment.create(target / "prefix", channels, [f"python {PYTHON}.*"], None, platform=machine)

    return cached_dir("native-python", [channels, PYTHON, machine], install) / "prefix"
