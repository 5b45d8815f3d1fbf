# SPDX-License-Identifier: MIT
"""Formatters, linters and type checks. C++ warnings are errors in the recipe's build of the extension."""

import subprocess
import sys
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT

from ..clang_tidy import complaints

TOOLS = Path(sys.executable).parent
if not (ROOT / ".git").exists():
    pytest.skip("no checkout of git's, which says what the sources are", allow_module_level=True)
TRACKED = subprocess.run(
    ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
).stdout.splitlines()
SCRIPTS = [name for name in TRACKED if name.endswith(".sh") or name == ".ci/run"]
CPP = [name for name in TRACKED if name.startswith("src/csrc/") and name.endswith((".h", ".cpp"))]
LINTERS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "shellcheck": ["shellcheck", "-x", *SCRIPTS],
    "clang-format": ["clang-format", "--dry-run", "--Werror", *CPP],
}
# Files whose form is another program's, or that say no more than one line can.
NO_LICENCE_LINE = (".txt", ".lock", ".in", ".json", ".toml", ".md", ".html", ".css", "LICENSE", "py.typed")


@pytest.mark.parametrize("name", LINTERS)
def test_linter(name: str) -> None:
    program, *arguments = LINTERS[name]
    done = subprocess.run([TOOLS / program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sources_say_their_licence() -> None:
    """By SPDX's identifier in the first three lines; an empty file says nothing."""
    missing = []
    for name in TRACKED:
        file = ROOT / name
        if not name.endswith(NO_LICENCE_LINE) and not name.startswith(".git") and file.exists() and file.stat().st_size:
            head = "".join(file.read_text().splitlines(keepends=True)[:3])
            if "SPDX-License-Identifier: MIT" not in head:
                missing.append(name)
    assert not missing


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name.endswith(".sh")])
def test_script_explains_itself(script: str) -> None:
    assert (ROOT / script).read_text().splitlines().count("set -euo pipefail") >= 1
    done = subprocess.run(["bash", ROOT / script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr


# Whose own headers are all that they take, and those of the C and C++ libraries; tests/packages has the others.
ALONE = [
    name for name in CPP if name.endswith(".cpp") and "/torch/" not in name and not name.endswith("acl_kernels.cpp")
]


@pytest.mark.parametrize("source", ALONE)
def test_clang_tidy(source: str) -> None:
    assert not complaints(source, "c++20", [])
