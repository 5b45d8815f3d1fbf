# SPDX-License-Identifier: MIT
"""env/spack and env/easybuild: written from the pins; easyconfigs are read and dry-run by EasyBuild."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base import pins
from aclpkg.base.cache import cached_dir
from aclpkg.base.hashes import tree_hash
from aclpkg.base.paths import ROOT
from aclpkg.base.processes import run
from aclpkg.deploy import spack_easybuild

REQUIREMENTS = Path(__file__).with_name("easybuild.txt")

SITE_PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def install_easybuild(target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--require-hashes", "--ignore-installed"]
    # Its sources are built with the pinned setuptools, which must be there before.
    lines = REQUIREMENTS.read_text()
    tools = re.findall(r"^(?:setuptools|wheel)==(?:.*\\\n)*.*$", lines, re.MULTILINE)
    (target / "tools.txt").write_text("\n".join(tools) + "\n")
    run([*pip, "--prefix", target / "tools", "-r", target / "tools.txt"])
    search = {**os.environ, "PYTHONPATH": str(target / "tools" / SITE_PACKAGES)}
    run([*pip, "--no-build-isolation", "--prefix", target, "-r", REQUIREMENTS], env=search)


def test_files_are_written_from_the_pins() -> None:
    files = [*(ROOT / "env/spack/spack_repo").rglob("*"), *(ROOT / "env/easybuild").glob("*.eb")]
    links = [file for file in files if file.is_symlink()]
    there = {str(f.relative_to(ROOT / "env")): f.read_text() for f in files if f.is_file() and f not in links}
    assert [link.resolve() for link in links] == [ROOT / "build_acl.sh"]
    assert there == spack_easybuild.descriptions(), "run ci/spack-easybuild.sh"
    version, sha256 = pins.PUBLIC_VARIANTS["acl_version"][0], pins.PUBLIC_VARIANTS["acl_sha256"][0]
    assert sum(version in text and sha256 in text for text in there.values()) == 3


def test_spack_packages() -> None:
    """Spack is neither in Debian nor on PyPI, so it was not run: Python reads them, and all it names is there."""
    for name, variables in (("arm_compute_library", {"operators"}), ("py_acl_qlinear", set())):
        text = (ROOT / f"env/spack/spack_repo/acl_qlinear/packages/{name}/package.py").read_text()
        tree = ast.parse(text)
        (package,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        assert package.name == name.title().replace("_", "")
        assert variables <= set(re.findall(r'variant\(\s*"(\w+)"', text))
        builds = '"neoverse-v1": ("neoverse_v1", "neoverse_v2", "neoverse_n2")'
        assert name == "py_acl_qlinear" or ('requires("target=armv8.2a:"' in text and builds in text)


@pytest.fixture
def easyconfigs() -> list[Path]:
    files = sorted((ROOT / "env/easybuild").glob("*.eb"))
    assert len(files) == 6
    return files


@pytest.fixture
def easybuild(lmod: Path) -> Callable[..., str]:
    """easybuild(argument…): what `eb` prints; it must succeed."""
    home = cached_dir("easybuild", [tree_hash(REQUIREMENTS), SITE_PACKAGES], install_easybuild)

    def run_eb(*arguments: str | Path) -> str:
        done = subprocess.run(
            [home / "bin/eb", f"--robot={ROOT / 'env/easybuild'}:{home / 'easybuild/easyconfigs'}", *arguments],
            env={
                "PATH": f"{lmod.parent}:/usr/bin:/bin",
                "HOME": str(home),
                "LMOD_CMD": str(lmod),
                "PYTHONPATH": str(home / SITE_PACKAGES),
                "EB_PYTHON": sys.executable,
                "MODULEPATH": "/nonexistent",
                "EASYBUILD_ALLOW_USE_AS_ROOT_AND_ACCEPT_CONSEQUENCES": "1",
                "LC_ALL": "C.UTF-8",
                "COLUMNS": "1000",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return run_eb


def test_easybuild_resolves_them(easybuild: Callable[..., str], easyconfigs: list[Path]) -> None:
    printed = easybuild("--dry-run", *easyconfigs)
    for file in easyconfigs:
        assert f"{file} (module: " in printed
    for needed in ("PyTorch-2.6.0-foss-2024a", "PyTorch-2.9.1-foss-2024a", "SCons-4.9.0-GCCcore-13.3.0"):
        assert f"/{needed}.eb (module: " in printed


def test_easybuild_would_take_them(easybuild: Callable[..., str], easyconfigs: list[Path]) -> None:
    assert "All style checks PASSed!" in easybuild("--check-contrib", *easyconfigs)
