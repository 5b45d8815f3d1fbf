"""The linters pass. C++ warnings are errors in the recipe's build of the extension."""

import subprocess
import sys
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT

TOOLS = Path(sys.executable).parent
SCRIPTS = [*ROOT.glob("*.sh"), *ROOT.glob("ci/*.sh"), *ROOT.glob("recipe/*/*.sh"), ROOT / ".ci/run"]


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["mypy"], ["shellcheck", "-x", *map(str, SCRIPTS)]],
    ids=lambda command: command[0],
)
def test_linter(command: list[str]) -> None:
    done = subprocess.run([TOOLS / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.suffix], ids=lambda s: s.name)
def test_script_explains_itself(script: Path) -> None:
    assert script.read_text().splitlines().count("set -euo pipefail") >= 1
    done = subprocess.run(["bash", script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr
