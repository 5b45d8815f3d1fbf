# SPDX-License-Identifier: MIT
"""AArch64 programs as others start them: from scripts, and in file systems of their own."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from aclpkg.base.paths import ROOT
from aclpkg.inputs import emulator

INSIDE = ROOT / "tests/emulated/inside"


def write_python(script: Path, cpu: str) -> None:
    """Writes a program that runs the Python of the environment in CONDA_PREFIX, on AArch64 or on an emulated `cpu`.

    Emulated, counts.txt in the working directory is the counter plugin's file.
    """
    words = emulator.emulated(["$CONDA_PREFIX/bin/python"], cpu, ",out=$PWD/counts.txt")
    settings = {
        name: value
        for name, value in emulator.activated(Path("$CONDA_PREFIX"), cpu).items()
        if name not in ("PATH", "CONDA_PREFIX", "HOME")
    }
    lines = [f'export {name}="${{{name}:-{value}}}"' for name, value in settings.items()]
    command = " ".join(f'"{word}"' for word in words)
    script.write_text("\n".join(["#!/bin/sh", *lines, f'exec {command} "$@"', ""]))
    script.chmod(0o755)


def inside_command(*options: str, files: list[str] | None = None) -> list[str | Path]:
    """The command that runs tests/emulated/inside in a prefix, or `files` of it; options: pytest's."""
    # Without the settings and the conftest.py of the tests around it.
    apart = ["-c", "/dev/null", f"--rootdir={INSIDE}", f"--confcutdir={INSIDE}", "-p", "no:cacheprovider"]
    program = ["python", "-m", "pytest", "-q", "-s", "--color=no", "--disable-warnings", *apart]
    return [*program, *options, *([INSIDE / file for file in files] if files else [INSIDE])]


def printed_by_passing_tests(done: subprocess.CompletedProcess[str]) -> str:
    """What `inside_command` printed, after checking that all tests passed and none was skipped."""
    print(done.stdout[-4000:], done.stderr[-2000:])
    assert done.returncode == 0
    last = done.stdout.splitlines()[-1]
    assert re.search(r"^\d+ passed", last) and "skipped" not in last, f"a test was skipped: {last}"
    return done.stdout


def command_in_root(root: Path, program: Sequence[str | Path], cpu: str) -> list[str]:
    """The command that runs `program`, whose first word is a path in `root`, a folder with a system of its own."""
    return emulator.emulated([root / program[0], *program[1:]], cpu, root=root)
