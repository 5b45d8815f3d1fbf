"""ci/build.sh and ci/test.sh where they may not install what is missing, and the cache below them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from aclpkg.base import processes
from aclpkg.base.messages import CiError
from aclpkg.base.paths import ROOT


@pytest.mark.parametrize("command", ["ci/build.sh", "ci/test.sh"])
def test_missing_program_is_named(tmp_path: Path, command: str) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "uname", "id", "cat", "python3", "tar", "xz", "gcc", "make"):
        program = shutil.which(name)
        assert program, name
        (programs / name).symlink_to(program)
    words = ["bash", ROOT / command]
    if os.getuid() == 0:
        # root would install it; a link for `id` that says otherwise is all that it takes to be nobody.
        (programs / "id").unlink()
        (programs / "id").write_text("#!/bin/bash\necho 65534\n")
        (programs / "id").chmod(0o755)
    done = subprocess.run(words, env={"PATH": str(programs)}, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: missing: " in done.stderr and "apt-get install" in done.stderr
    if os.uname().machine != "aarch64":
        assert "pkg-config" in done.stderr


def test_cache_with_spaces_is_refused(tmp_path: Path) -> None:
    words = ["bash", ROOT / "ci/build.sh"]
    home = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "my cache")}
    done = subprocess.run(words, env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "expected a path without spaces; set XDG_CACHE_HOME" in done.stderr
    assert not (tmp_path / "my cache").exists()


def test_failed_command_shows_its_end() -> None:
    with pytest.raises(CiError, match="sh -c echo the reason; exit 3 … failed with 3:\nthe reason"):
        processes.run(["sh", "-c", "echo the reason; exit 3"])
