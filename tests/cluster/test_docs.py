"""Every command in docs/ is executed, on the cluster of conftest.py, in a copy of the checkout; errors are real."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from aclpkg.base.cache import cached_dir
from aclpkg.base.hashes import tree_hash
from aclpkg.base.paths import DIST, ROOT
from aclpkg.base.processes import run
from aclpkg.build import dist
from aclpkg.inputs import emulator

from .test_spack_easybuild import REQUIREMENTS, SITE_PACKAGES, install_easybuild

DOCS = sorted((ROOT / "docs").glob("*.md"))
# Programs that users have and Debian does not package; a block that begins with one needs it.
ELSEWHERE = ("conda", "mamba", "pixi", "spack")
ENGINES = ("docker", "podman", "apptainer")
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<kind>sh|text)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of commands, or of an error's text; mark: the comment before it."""

    name: str
    kind: str
    mark: str
    text: str


def blocks(kind: str) -> list[Block]:
    found = []
    for file in DOCS:
        text = file.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start("text")].count("\n") + 1
            found.append(Block(f"{file.name}:{line}", match["kind"], match["mark"] or "", match["text"]))
    return [block for block in found if block.kind == kind]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout after ci/build.sh, and a key."""
    home = tmp_path_factory.mktemp("docs") / "checkout"
    shutil.copytree(ROOT, home, ignore=shutil.ignore_patterns(".git", "dist", "*.log"))
    (home / "dist").mkdir()
    shutil.copytree(dist.CHANNEL, home / "dist/channel")
    shutil.copy(dist.UPSTREAM, home / "dist")
    if (DIST / "bootstrap").is_symlink():
        (home / "dist/bootstrap").symlink_to((DIST / "bootstrap").readlink())
    key = home.with_name("key")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    home.with_name("signers").write_text(f"publisher {key.with_suffix('.pub').read_text()}")
    return home


@pytest.fixture(scope="module")
def variables(environment: dict[str, str], workspace: Path, deployed: Path, slurm: Path) -> dict[str, str]:
    """What the documents call $CHANNEL, $ROOT, and so on, and programs that are on the PATH of their readers."""
    easybuild = cached_dir("easybuild", [tree_hash(REQUIREMENTS), SITE_PACKAGES], install_easybuild)
    place = workspace.parent
    prefix = next(deployed.glob("software/neoverse_v1/acl-qlinear/*"))
    # An active environment's, without python3, which this project's own commands need for this machine.
    programs = place / "programs"
    programs.mkdir()
    for name in ("python", "acl-qlinear"):
        shutil.copy(slurm / "programs" / name, programs)
    return {
        **environment,
        "PATH": f"{programs}:{easybuild}/bin:{os.environ['PATH']}",
        "CONDA_PREFIX": str(prefix),
        "CHANNEL": str(workspace / "dist/channel"),
        "FOLDER": str(place / "published"),
        "KEY": str(place / "key"),
        "SIGNERS": str(place / "signers"),
        "NAME": "publisher",
        "ROOT": str(place / "modules"),
        "SITE": "tests/cluster/site.py",
        "OUTPUT": str(place / "sweep"),
        "OMP_NUM_THREADS": "1",
        "EASYCONFIGS": str(easybuild / "easybuild/easyconfigs"),
        "EB_PYTHON": sys.executable,
        "PYTHONPATH": str(easybuild / SITE_PACKAGES),
        "EASYBUILD_ALLOW_USE_AS_ROOT_AND_ACCEPT_CONSEQUENCES": "1",
        "BUILDAH_ISOLATION": "chroot",
        "STORAGE_DRIVER": "vfs",
    }


@pytest.mark.skipif(emulator.NATIVE, reason="the cluster's module system is an emulated one")
@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.name)
def test_command(block: Block, request: pytest.FixtureRequest) -> None:
    if block.mark.startswith("AArch64: "):
        pytest.skip(f"on AArch64 only: {block.mark.removeprefix('AArch64: ')}")
    program = block.text.split()[0]
    if program in ELSEWHERE and not shutil.which(program):
        pytest.skip(f"{program} is not on this machine")
    if program in ENGINES:
        pytest.skip(f"{program} would run the image's programs on this machine's CPU; test_image.py reads and runs it")
    workspace, variables = request.getfixturevalue("workspace"), request.getfixturevalue("variables")
    if block.mark == "job.sh":
        # Runs in the block after it.
        (workspace / block.mark).write_text(block.text)
        return
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=workspace,
        env=variables,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(done.stdout[-4000:])
    assert done.returncode == 0
    if "job.out" in block.text:
        assert "results are right" in done.stdout


def test_error_texts_are_the_real_ones(module_systems: Path) -> None:
    """Each piece between the values is in what says it: ours, or the loader of the C library."""
    ours = [*ROOT.glob("src/**/*.py"), *ROOT.glob("src/csrc/torch/*.cpp"), *ROOT.glob("env/modules/*")]
    # Neighbouring parts of one text, as Python, C++, Lua and Tcl write them.
    joined = [re.sub(r"[\"']\s+(?:\.\.\s+)?f?[\"']|\\\n\s*", "", file.read_text()) for file in ours]
    loader = (module_systems / "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1").read_bytes().decode("latin-1")
    known = " ".join([*joined, loader]).replace('\\"', '"')
    texts = blocks("text")
    assert len(texts) > 6
    for block in texts:
        text = re.sub(r"^(ImportError: |problem  \w+ +)", "", block.text.strip())
        for piece in text.split("…"):
            assert piece.strip() in known, (block.name, piece)
