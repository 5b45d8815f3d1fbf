"""What comes from Debian is what is pinned."""

from pathlib import Path

import pytest
from aclpkg.base.messages import CiError
from aclpkg.inputs import debian, debian_lock


def test_lock_is_current() -> None:
    """Debian still has what is pinned, and all of what is used is."""
    lines = (line.split() for line in debian.LOCK.read_text().splitlines() if not line.startswith("#"))
    assert {name: sha256 for sha256, name in lines} == debian_lock.locked_files(), "run ci/lock.sh"


def test_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("altered")
    with pytest.raises(CiError, match=f"file has sha256 [0-9a-f]{{64}}, expected {'0' * 64}: delete"):
        debian.check_sha256(tmp_path / "file", "0" * 64)


def test_source_with_another_sha256_in_debian() -> None:
    with pytest.raises(CiError, match=r"arm-compute-library_.* has sha256 [0-9a-f]{64}, expected 0"):
        debian.source("trixie", "arm-compute-library", "0" * 64)
