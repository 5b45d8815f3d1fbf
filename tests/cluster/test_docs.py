# SPDX-License-Identifier: MIT
"""Every command in the documents is executed, in copies of the checkout; examples run, and errors are real."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from aclpkg.base.cache import cached_dir
from aclpkg.base.hashes import tree_hash
from aclpkg.base.paths import DIST, ROOT
from aclpkg.base.processes import run
from aclpkg.build import dist, recipes
from aclpkg.inputs import emulator

from ..conftest import TORCH
from ..emulation import INSIDE
from .test_spack_easybuild import REQUIREMENTS, SITE_PACKAGES, install_easybuild

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
# Programs that this machine may lack: Debian packages the last one only.
ELSEWHERE = ("conda", "mamba", "pixi", "rattler-build", "spack", "gdb-multiarch")
ENGINES = ("docker", "podman", "apptainer")
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<kind>sh|text|python)\n(?P<text>.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of commands, of Python, or of an error's text.

    mark: the comment before it. "not executed: …" and "AArch64: …" say why it is not; "adds: …" says what the
    checkout has afterwards, a kernel, a preset or a build of a recipe; "job.sh" is the file that it is.
    """

    document: str
    line: int
    kind: str
    mark: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(kind: str, *documents: str) -> list[Block]:
    """The blocks of a kind, in some documents or in all."""
    found = []
    for file in DOCUMENTS:
        text = file.read_text()
        for match in BLOCK.finditer(text):
            line = text[: match.start("text")].count("\n") + 1
            found.append(Block(file.name, line, match["kind"], match["mark"] or "", match["text"]))
    return [b for b in found if b.kind == kind and (not documents or b.document in documents)]


def skip_if_not_executed(block: Block) -> None:
    for mark, reason in (("not executed: ", "not executed here"), ("AArch64: ", "on AArch64 only")):
        if block.mark.startswith(mark):
            pytest.skip(f"{reason}: {block.mark.removeprefix(mark)}")
    program = block.text.split()[0]
    if program in ENGINES:
        pytest.skip(f"{program} would run the image's programs on this machine's CPU; test_image.py reads and runs it")
    for needed in ELSEWHERE:
        if re.search(f"^{needed} ", block.text, re.MULTILINE) and not shutil.which(needed):
            pytest.skip(f"{needed} is not on this machine")


def execute(block: Block, home: Path, variables: dict[str, str]) -> str:
    """What a block prints in the folder `home`; its commands must succeed."""
    # A reader's shell is not in a test.
    variables = {name: value for name, value in variables.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=home,
        env=variables,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(done.stdout[-4000:])
    assert done.returncode == 0
    return done.stdout


def copy_checkout(home: Path) -> None:
    """A copy of the checkout after ci/build.sh."""
    shutil.copytree(ROOT, home, ignore=shutil.ignore_patterns(".git", "dist", "*.log", ".*_cache", "__pycache__"))
    (home / "dist").mkdir()
    shutil.copytree(dist.CHANNEL, home / "dist/channel")
    shutil.copy(dist.UPSTREAM, home / "dist")
    if (DIST / "bootstrap").is_symlink():
        (home / "dist/bootstrap").symlink_to((DIST / "bootstrap").readlink())


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, and a key beside it."""
    home = tmp_path_factory.mktemp("docs") / "checkout"
    copy_checkout(home)
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
        "CHANNEL": (workspace / "dist/channel").as_uri(),
        "FOLDER": str(place / "published"),
        "KEY": str(place / "key"),
        "SIGNERS": str(place / "signers"),
        "XDG_STATE_HOME": str(place / "state"),
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


USERS = [document.name for document in DOCUMENTS if document.name != "CONTRIBUTING.md"]


@pytest.mark.skipif(emulator.NATIVE, reason="the cluster's module system is an emulated one")
@pytest.mark.parametrize("block", blocks("sh", *USERS), ids=lambda block: block.name)
def test_command(block: Block, request: pytest.FixtureRequest) -> None:
    skip_if_not_executed(block)
    workspace, variables = request.getfixturevalue("workspace"), request.getfixturevalue("variables")
    if block.mark == "job.sh":
        # Runs in the block after it.
        (workspace / block.mark).write_text(block.text)
        return
    printed = execute(block, workspace, variables)
    if "job.out" in block.text:
        assert "results are right" in printed


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, installed: Callable[[str, str], Path]) -> Path:
    """A contributor's clone after ci/build.sh."""
    home = tmp_path_factory.mktemp("contributing") / "clone"
    copy_checkout(home)
    git(home, "init", "-q")
    git(home, "add", ".")
    git(home, "-c", "user.name=contributor", "-c", "user.email=contributor@localhost", "commit", "-qm", "All")
    prefixes = home / "dist/prefix"
    prefixes.mkdir()
    (prefixes / f"armv8_2a-pytorch{TORCH}").symlink_to(installed("armv8_2a", TORCH))
    return home


def git(home: Path, *words: str) -> None:
    run(["git", "-C", home, *words])


@pytest.mark.skipif(emulator.NATIVE, reason="debugging is shown under emulation")
@pytest.mark.parametrize("block", blocks("sh", "CONTRIBUTING.md"), ids=lambda block: block.name)
def test_contributing(block: Block, request: pytest.FixtureRequest) -> None:
    """At most ten commands each; what a recipe says that it adds is there."""
    assert len(block.text.splitlines()) <= 10
    skip_if_not_executed(block)
    home = request.getfixturevalue("clone")
    execute(block, home, dict(os.environ))
    if block.mark.startswith("adds: "):
        what, name = block.mark.removeprefix("adds: ").split()
        listed = {"kernel": kernels, "preset": presets}.get(what, lambda home: builds(home, what))
        assert name in listed(home)
    # The next block begins with the clone; what git ignores, dist/ that is, stays.
    git(home, "reset", "-q", "--hard")
    git(home, "clean", "-qfd")


def builds(home: Path, recipe: str) -> set[str]:
    """Build strings that a checkout's recipe makes of its variants, without hash and number."""
    variants = yaml.safe_load((home / "recipe/variants.yaml").read_text())
    rendered = recipes.render(home / "recipe" / recipe, variants)
    return {str(variant.recipe.build.string).split("_h")[0] for variant in rendered}


def kernels(home: Path) -> set[str]:
    """The kernels in a checkout's table of families."""
    return set(re.findall(r"\.run *= (\w+)", (home / "src/csrc/kernels/families.cpp").read_text()))


def presets(home: Path) -> set[str]:
    """The names in the benchmark's table of presets."""
    tree = ast.parse((home / "src/acl_qlinear/bench/workloads.py").read_text())
    tables = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PRESETS"
    ]
    assert len(tables) == 1 and isinstance(tables[0], ast.Dict)
    return {key.value for key in tables[0].keys if isinstance(key, ast.Constant)}


def test_examples(
    installed: Callable[[str, str], Path], run_in: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The Python of docs/use.md, then the README's, in one process, as they say; beside a checkpoint."""
    examples = [*blocks("python", "use.md"), *blocks("python", "README.md")]
    assert len(examples) > 8 and len(examples) == len(blocks("python"))
    checkpoint = "import sys\nfrom pathlib import Path\n"
    checkpoint += f"sys.path.insert(0, {str(INSIDE)!r})\nimport test_compressed_tensors as makes\n"
    checkpoint += "makes.save(makes.frozen('by token'), Path('w8a8'))\n"
    program = "\n".join([checkpoint, *(block.text for block in examples)])
    home = installed("neoverse_v1", TORCH)
    done = run_in(home, ["python", "-W", "ignore", "-c", program], emulator.CPUS["neoverse_v1"][0])
    print(done.stdout, done.stderr[-3000:])
    assert done.returncode == 0 and "2 of 2 linear layers are on ACL" in done.stdout


def test_error_texts_are_the_real_ones(module_systems: Path) -> None:
    """Each piece between the values is in what says it: ours, or the loader of the C library."""
    ours = [
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("src/csrc/torch/**/*.cpp"),
        *ROOT.glob("env/modules/*"),
        *ROOT.glob("ci/*.sh"),
        *ROOT.glob("ci/aclpkg/base/*.py"),
    ]
    # Neighbouring parts of one text, as Python, C++, Lua and Tcl write them.
    joined = [re.sub(r"[\"']\s+(?:\.\.\s+)?f?[\"']|\\\n\s*", "", file.read_text()) for file in ours]
    loader = (module_systems / "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1").read_bytes().decode("latin-1")
    known = " ".join([*joined, loader]).replace('\\"', '"')
    texts = blocks("text", "troubleshooting.md")
    assert len(texts) > 6
    for block in texts:
        text = re.sub(r"^(ImportError: |problem  \w+ +)", "", block.text.strip())
        for piece in text.split("…"):
            assert piece.strip() in known, (block.name, piece)
