"""ci/build.sh and ci/test.sh where they may not install what is missing, and the cache below them."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from acl_ci import cache, debian
from acl_ci.cache import ROOT, CiError


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


def test_cached_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", tmp_path)

    def fail(target: Path) -> None:
        (target / "half").touch()
        raise CiError("no")

    with pytest.raises(CiError):
        cache.folder("thing", ["input"], fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    made = cache.folder("thing", ["input"], lambda target: (target / "whole").touch())
    assert (made / "whole").exists()
    assert cache.folder("thing", ["input"], fail) == made
    assert cache.folder("thing", ["other input"], lambda target: None) != made


def test_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("altered")
    with pytest.raises(CiError, match=f"file has sha256 [0-9a-f]{{64}}, expected {'0' * 64}: delete"):
        debian.check_sha256(tmp_path / "file", "0" * 64)


def test_source_with_another_sha256_in_debian() -> None:
    with pytest.raises(CiError, match=r"arm-compute-library_.* has sha256 [0-9a-f]{64}, expected 0"):
        debian.source("trixie", "arm-compute-library", "0" * 64)


def test_failed_command_shows_its_end() -> None:
    with pytest.raises(CiError, match="sh -c echo the reason; exit 3 … failed with 3:\nthe reason"):
        cache.run(["sh", "-c", "echo the reason; exit 3"])
