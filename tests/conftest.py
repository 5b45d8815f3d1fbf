# SPDX-License-Identifier: MIT
"""What the tests share: the channel that ci/build.sh made, and prefixes installed from it."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from aclpkg.base import environment
from aclpkg.base.files import holding_lock
from aclpkg.base.paths import DIST, ROOT
from aclpkg.base.pins import TORCH, VARIANTS, rows
from aclpkg.base.processes import exit_now, run
from aclpkg.build import dist
from aclpkg.inputs import bootstrap, emulator
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# They run inside the prefixes; tests/emulated/test_prefixes.py starts them there.
collect_ignore = ["emulated/inside"]

# What takes longest starts first; the rest fills up the other worker's time.
LONGEST_FIRST = [
    "emulated/test_prefixes.py",
    "cluster/test_docs.py",
    "emulated/test_speed.py",
    "packages/test_full_library.py",
    "packages/test_rebuild.py",
    "cluster/test_slurm.py",
    "cluster/test_image.py",
    "emulated/test_bench.py",
]

MICROARCHITECTURES = VARIANTS["microarchitecture"]
TORCHES = VARIANTS["pytorch"]
# Both builds for the oldest PyTorch and for the newest that has builds of its own, one for every other PyTorch: the
# last microarchitecture's for the newest of all, and so on in turn.
PREFIXES = [
    (microarchitecture, torch)
    for number, torch in enumerate(TORCHES)
    for other, microarchitecture in enumerate(MICROARCHITECTURES)
    if torch in (TORCHES[0], TORCH) or other == (number - len(TORCHES)) % len(MICROARCHITECTURES)
]
# What the build strings of acl-qlinear begin with, by PyTorch.
BUILD_TAGS = {
    torch: "ptstable" if abi == "stable" else f"pt{torch.replace('.', '')}"
    for torch, abi in rows("pytorch", "pytorch_abi")
}
ACL_VERSION = VARIANTS["acl_version"][0]
counted = pytest.mark.skipif(emulator.NATIVE, reason="counts are for emulation; ci/bench.sh measures time")
EXIT_STATUS = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also what takes longest: see CONTRIBUTING.md")
    parser.addoption("--update-tables", action="store_true", help="write the tables that tests compare with docs/")
    parser.addoption("--channel", action="append", default=[], help="where compilers, Python and PyTorch come from")
    parser.addoption("--in", dest="prefix", metavar="PREFIX", help="only the tests inside this prefix")
    parser.addoption("--inside", default="", metavar="ARGUMENTS", help="with --in: pytest's arguments for these tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    first = {ROOT / "tests" / file: number for number, file in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))
    prefix = config.getoption("prefix")
    if prefix:
        there = {item.name: item for item in items if item.name.startswith("test_inside_prefix[")}
        name = f"test_inside_prefix[{prefix}]"
        if name not in there:
            names = ", ".join(other.removeprefix("test_inside_prefix[").rstrip("]") for other in there)
            raise pytest.UsageError(f"--in is {prefix!r}, expected one of {names}")
        items[:] = [there[name]]


@pytest.fixture
def hold_table(pytestconfig: pytest.Config) -> Callable[[str, str, list[str]], None]:
    """hold_table(document, first column, lines): the document has the table, or gets it with --update-tables."""

    def hold(document: str, column: str, lines: list[str]) -> None:
        file = ROOT / document
        text = file.read_text()
        (there,) = re.findall(rf"^\| {column} \|.*\n(?:\|.*\n)+", text, re.MULTILINE)
        table = "".join(f"{line}\n" for line in lines)
        if pytestconfig.getoption("--update-tables"):
            file.write_text(text.replace(there, table))
        else:
            assert there == table, f"{document} has another table: the same test writes it with --update-tables"

    return hold


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came in time"
        time.sleep(0.2)


class ByFile(LoadScopeScheduling):
    """A file's tests run on one worker, since they share what they measured; those inside prefixes on all of them."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return nodeid if file.endswith("test_prefixes.py") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    return ByFile(config, log)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[EXIT_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    # pytest-xdist's workers still have something to tell the process that started them.
    if EXIT_STATUS in config.stash and not hasattr(config, "workerinput"):
        exit_now(config.stash[EXIT_STATUS])


@pytest.fixture(scope="session")
def upstream(pytestconfig: pytest.Config) -> list[str]:
    """The channels with everything that is not ours: those of dist/channel, where that has been built."""
    if dist.CHANNEL.is_dir():
        return dist.upstream_of_built_channel()
    return dist.upstream_channels(pytestconfig.getoption("channel"))


@pytest.fixture(scope="session")
def channels(upstream: list[str]) -> list[str]:
    """Our channel, then the one with everything else."""
    return [dist.CHANNEL.as_uri(), *upstream]


@cache
def _install(microarchitecture: str, torch: str) -> Path:
    # torchao's releases are for one PyTorch each.
    extra = ["torchao", "transformers", "compressed-tensors"] if torch == TORCH else []
    channels = dist.upstream_of_built_channel()
    # Anew in every run of the tests, once for all of pytest-xdist's workers.
    this_run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    home = DIST / "prefix" / f"{microarchitecture}-pytorch{torch}"
    made = home.with_name(f"{home.name}.run")
    with holding_lock(home.with_name(f"{home.name}.lock")):
        if not made.exists() or made.read_text() != this_run:
            made.unlink(missing_ok=True)
            dist.install(microarchitecture, torch, channels, ["pytest", "hypothesis", "matplotlib-base", *extra])
            made.write_text(this_run)
    return home


@pytest.fixture(scope="session")
def installed() -> Callable[[str, str], Path]:
    """installed(microarchitecture, PyTorch minor): a prefix with acl-qlinear and the test tools."""
    return _install


@pytest.fixture(scope="session")
def unpacked() -> Callable[[str], Path]:
    """unpacked(microarchitecture): the files of both packages, as installed with the PyTorch that is measured."""
    return lambda microarchitecture: _install(microarchitecture, TORCH)


@pytest.fixture(scope="session")
def full_channel(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel with all of ACL, as ci/build.sh --operators full makes it."""
    if not pytestconfig.getoption("--all"):
        pytest.skip("compiles all of ACL, twice: ci/test.sh --all")
    channel = tmp_path_factory.mktemp("full") / "channel"
    names = ["acl-microarch", "arm-compute-library"]
    dist.fill_channel(channel, dist.upstream_of_built_channel(), names, operators="full")
    return channel


@pytest.fixture(scope="session")
def compiler(upstream: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with bin/aarch64-conda-linux-gnu-g++ and its like."""
    target = tmp_path_factory.mktemp("tools") / "compiler"
    machine = bootstrap.SUBDIR[bootstrap.BUILD_ARCH]
    environment.create(target, upstream, ["gxx_linux-aarch64"], None, platform=machine)
    return target


@pytest.fixture(scope="session")
def cxx(compiler: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C++ compiler for AArch64 as one program, as the variable CXX names one."""
    script = tmp_path_factory.mktemp("cxx") / "g++"
    sysroot = compiler / "aarch64-conda-linux-gnu/sysroot"
    # torch.compile asks for the CPU that it runs on, which a cross compiler does not see.
    script.write_text(
        f"""\
#!/bin/bash
exec "{compiler}/bin/aarch64-conda-linux-gnu-g++" --sysroot="{sysroot}" "${{@/#-march=native/-march=armv8.2-a}}"
"""
    )
    script.chmod(0o755)
    return script


@pytest.fixture(scope="session")
def inductor(cxx: Path) -> dict[str, str]:
    """Variables with which an emulated PyTorch compiles: no processes of its own, which would be emulated, too."""
    return {"CXX": str(cxx), "TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_VEC_ISA_OK": "1"}


@pytest.fixture(scope="session")
def binutils(compiler: Path) -> Path:
    """The folder with aarch64-conda-linux-gnu-readelf and its like."""
    return compiler / "bin"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 40 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    run(["umount", "--lazy", disk])


@pytest.fixture(scope="session")
def build_by_pkg_config(cxx: Path) -> Callable[[Path, Path], Path]:
    """build_by_pkg_config(source, prefix): a program in the prefix's bin/, built with what its pkg-config file says."""

    def build_program(source: Path, home: Path) -> Path:
        search = {**os.environ, "PKG_CONFIG_PATH": str(home / "lib/pkgconfig")}
        flags = run(["pkg-config", "--cflags", "--libs", "arm-compute-library"], env=search).split()
        program = home / "bin" / source.stem
        program.parent.mkdir(exist_ok=True)
        run(
            [
                cxx,
                "-std=c++14",
                "-O1",
                source,
                "-o",
                program,
                *flags,
                f"-Wl,-rpath,{home}/lib",
                "-Wl,--allow-shlib-undefined",
            ]
        )
        return program

    return build_program


@pytest.fixture(scope="session")
def run_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """run_in(prefix, ["python", …], "neoverse-v1"): runs a program of a prefix, emulated where need be."""
    return emulator.run_program
