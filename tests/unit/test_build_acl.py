# SPDX-License-Identifier: MIT
"""build_acl.sh says what is wrong with its arguments, and leaves nothing behind."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ROOT / "build_acl.sh", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def compiler(tmp_path: Path) -> dict[str, str]:
    """An environment whose compiler and scons can be asked for their name, and nothing else."""
    for name, body in {"cxx": "echo aarch64-test", "scons": "exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CC": str(tmp_path / "cxx"), "CXX": str(tmp_path / "cxx")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variant", "armv7"], "--source is missing"),
        (["--source", ".", "--variant", "armv7", "--prefix", "P"], "--variant is 'armv7', expected armv8.2-a or neov"),
        (["--source", ".", "--prefix", "P"], "--variant is missing"),
        (["--source", ".", "--variant", "armv8.2-a"], "--prefix is missing"),
        (
            ["--source", ".", "--variant", "armv8.2-a", "--prefix", "P", "--operators", "x"],
            "--operators is 'x', expected",
        ),
        (["--source", ".", "--variant", "armv8.2-a", "--prefix", "P", "--jobs", "0"], "--jobs is '0', expected"),
        (["--fast"], "unknown argument '--fast'"),
        (["--prefix"], "--prefix needs a value"),
    ],
)
def test_bad_argument(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 1 and message in done.stderr, done.stderr


def test_profile_is_another_name_of_operators() -> None:
    done = run("--source", ".", "--variant", "armv8.2-a", "--prefix", "P", "--profile", "x")
    assert done.returncode == 1 and "--operators is 'x', expected qlinear or full" in done.stderr


def test_no_compiler(tmp_path: Path, compiler: dict[str, str]) -> None:
    target = tmp_path / "prefix"
    environment = {**compiler, "CXX": "/nowhere/g++"}
    done = run("--variant", "armv8.2-a", "--source", ".", "--prefix", str(target), **environment)
    assert done.returncode == 1 and "program '/nowhere/g++' is not on PATH" in done.stderr
    assert not target.exists()


def test_compiler_for_another_machine(tmp_path: Path, compiler: dict[str, str]) -> None:
    Path(compiler["CXX"]).write_text("#!/bin/sh\necho riscv64-linux-gnu\n")
    done = run("--variant", "armv8.2-a", "--source", ".", "--prefix", str(tmp_path / "p"), **compiler)
    assert done.returncode == 1 and "makes programs for riscv64-linux-gnu, expected aarch64" in done.stderr


def test_source_that_is_not_there(tmp_path: Path, compiler: dict[str, str]) -> None:
    done = run("--variant", "armv8.2-a", "--source", "/nowhere", "--prefix", str(tmp_path / "p"), **compiler)
    assert done.returncode == 1 and "'/nowhere' is neither a directory nor a file" in done.stderr


def test_source_with_another_sha256(tmp_path: Path, compiler: dict[str, str]) -> None:
    tarball, target = tmp_path / "acl.tar.xz", tmp_path / "prefix"
    tarball.write_bytes(b"not ACL")
    done = run("--variant", "neoverse-v1", "--source", str(tarball), "--prefix", str(target), **compiler)
    actual = hashlib.sha256(b"not ACL").hexdigest()
    assert done.returncode == 1 and f"has sha256 {actual}, which is not in" in done.stderr
    assert "variants.yaml" in done.stderr
    assert not target.exists()


def test_source_that_is_something_else(tmp_path: Path, compiler: dict[str, str]) -> None:
    (tmp_path / "other").mkdir()
    target = tmp_path / "prefix"
    done = run("--variant", "neoverse-v1", "--source", str(tmp_path / "other"), "--prefix", str(target), **compiler)
    assert done.returncode == 1 and "holds no SConstruct" in done.stderr
    assert not target.exists()
