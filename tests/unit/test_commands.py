# SPDX-License-Identifier: MIT
"""ci/build.sh and ci/test.sh where they may not install what is missing, and the cache below them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aclpkg.base import processes
from aclpkg.base.messages import CiError
from aclpkg.base.paths import ROOT
from aclpkg.inputs import emulator


@pytest.mark.skipif(emulator.NATIVE, reason="on AArch64 no emulator is built")
@pytest.mark.parametrize("command", [["ci/build.sh"], ["ci/test.sh"], ["ci/test.sh", "engine"], ["ci/bench.sh"]])
def test_missing_program_is_named(tmp_path: Path, command: list[str]) -> None:
    """Where neither root nor apt can install it."""
    for name in ("bash", "dirname", "sha256sum", "tar", "xz", "gcc", "make"):
        program = shutil.which(name)
        assert program, name
        (tmp_path / name).symlink_to(program)
    # The tools' own Python first, as in a command that another one starts.
    search = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{tmp_path}"}
    words = ["bash", ROOT / command[0], *command[1:]]
    done = subprocess.run(words, env=search, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line = done.stderr.splitlines()[0]
    assert line.startswith("error: missing: ") and " pkg-config glib-2.0.pc" in line.replace("missing:", "")
    assert "(on Debian, as root: apt-get install" in line and "libglib2.0-dev" in line


def test_wrong_stage_is_named() -> None:
    done = subprocess.run(["bash", ROOT / "ci/test.sh", "emulted"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "error: STAGE is 'emulted', expected lint, unit, engine, emulated" in done.stderr


def test_cache_with_spaces_is_refused(tmp_path: Path) -> None:
    words = ["bash", ROOT / "ci/build.sh"]
    home = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "my cache")}
    done = subprocess.run(words, env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "expected a path without spaces; set XDG_CACHE_HOME" in done.stderr
    assert not (tmp_path / "my cache").exists()


def test_failed_command_shows_its_end() -> None:
    with pytest.raises(CiError, match="sh -c echo the reason; exit 3 … failed with 3:\nthe reason"):
        processes.run(["sh", "-c", "echo the reason; exit 3"])
