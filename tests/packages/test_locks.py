# SPDX-License-Identifier: MIT
"""env/lock/: the packages of every environment, for conda, mamba and pixi."""

from pathlib import Path

import pytest
import tomllib
from aclpkg.base import environment
from aclpkg.base.hashes import sha256
from aclpkg.base.paths import DIST
from aclpkg.build import dist
from aclpkg.inputs import bootstrap, locked_environments
from aclpkg.release import environment_locks
from rattler import LockFile

from ..conftest import TORCH, TORCHES

FILES = sorted(locked_environments.ENVIRONMENTS.glob("*"))


@pytest.fixture(scope="module", autouse=True)
def _bootstrap() -> None:
    upstream = dist.upstream_of_built_channel()
    if bootstrap.BUILD_ARCH != "x86_64" or not all(address.startswith("file:") for address in upstream):
        pytest.skip(
            f"env/lock is of x86-64 machines and the bootstrap channel; this is {bootstrap.BUILD_ARCH}, {upstream}"
        )


def test_locks_are_current(tmp_path: Path) -> None:
    environment_locks.write_environments(tmp_path)
    expected = {file.name: file.read_text() for file in sorted(tmp_path.iterdir())}
    assert {file.name: file.read_text() for file in FILES} == expected, "run ci/lock.sh"
    environments = {file.stem for file in FILES if file.suffix == ".txt"}
    assert {f"{what}-pytorch{torch}" for torch in TORCHES for what in ("use", "host-acl-qlinear")} < environments
    assert {f"build-{name}" for name in ("arm-compute-library", "acl-qlinear")} < environments


def test_locked_environment_can_be_used(tmp_path: Path) -> None:
    """Every address leads to a file with its hash; acl-qlinear goes on top of them and changes none."""
    name = f"use-pytorch{TORCH}"
    text = (locked_environments.ENVIRONMENTS / f"{name}.txt").read_text()
    entries = [line.split("#sha256:") for line in text.splitlines() if "#sha256:" in line]
    assert len(entries) > 10
    for url, expected in entries:
        # conda takes a path from the folder that it is called in.
        assert sha256(DIST.parent / url) == expected
    records = locked_environments.locked_environment(name)
    assert len(records) == len(entries)
    specs = [f"{r.name.normalized} =={r.version} {r.build}" for r in records]
    found = environment.create(
        tmp_path / "prefix", [dist.CHANNEL.as_uri(), *dist.upstream_of_built_channel()], ["acl-qlinear", *specs], None
    )
    added = {r.name.normalized for r in found} - {r.name.normalized for r in records}
    assert added == {"acl-qlinear", "arm-compute-library"}
    assert len(list((tmp_path / "prefix/conda-meta").glob("*.json"))) == len(records) + 2


def test_pixi_files_agree() -> None:
    """rattler, which pixi is made of, reads the same packages from pixi.lock as are in the *.txt files."""
    environments = dict(LockFile.from_path(locked_environments.ENVIRONMENTS / "pixi.lock").environments())
    manifest = tomllib.loads((locked_environments.ENVIRONMENTS / "pixi.toml").read_text())
    names = {file.stem: file for file in FILES if file.suffix == ".txt"}
    assert {name.replace(".", "-") for name in names} == set(environments) == set(manifest["environments"])
    for name, file in names.items():
        text = file.read_text()
        (packages_,) = environments[name.replace(".", "-")].packages_by_platform().values()
        asked = manifest["feature"][name.replace(".", "-")]["dependencies"]
        assert len(packages_) == text.count("#sha256:") == len(asked)
        for package in packages_:
            assert package.hashes and package.hashes.sha256 and package.hashes.sha256.hex() in text
