# SPDX-License-Identifier: MIT
"""Runs AArch64 programs: as they are on AArch64, under qemu-user elsewhere.

One qemu for everything, built from Debian's source package since Debian's own
build takes no plugins, with ci/guest_counters.c as its plugin.
"""

import os
import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import archspec.cpu

from ..base.cache import cached_dir
from ..base.hashes import tree_hash
from ..base.messages import CiError, log
from ..base.paths import ROOT
from ..base.pins import MICROARCHITECTURES
from ..base.processes import run
from . import debian
from .bootstrap import BOOTSTRAP

NATIVE = platform.machine() == "aarch64"
# What building the emulator, and ACL, takes of the machine, by Debian's packages.
PROGRAMS = {"tar": "tar", "xz": "xz-utils"}
if not NATIVE:
    PROGRAMS |= {
        "gcc": "gcc",
        "make": "make",
        "pkg-config": "pkg-config",
        "glib-2.0.pc": "libglib2.0-dev",
        # gcc only recommends it.
        "/usr/include/stdio.h": "libc6-dev",
    }
CONFIGURE = [
    "--enable-download",
    "--target-list=aarch64-linux-user",
    "--enable-plugins",
    "--disable-system",
    "--disable-docs",
    "--disable-tools",
    "--without-default-features",
    "--enable-linux-user",
    "--disable-install-blobs",
    "--enable-lto",
    "-Doptimization=3",
]
# Python and PyTorch jump about in more code than qemu keeps tables and translations for. With these, and LTO, it runs
# them 5 to 15 % faster.
PATCHES = {
    "accel/tcg/tb-jmp-cache.h": ("TB_JMP_CACHE_BITS 12", "TB_JMP_CACHE_BITS 16"),
    "tcg/region.c": ("(128 * MiB)", "(1 * GiB)"),
}
# The CPUs that builds for a microarchitecture are tried on; the first has little more than they need.
CPUS = {name: one.emulated_cpus for name, one in MICROARCHITECTURES.items()}


def _compiler_flags() -> list[str]:
    # What qemu makes of vector instructions is AVX where the machine has it. After that, SSE instructions take many
    # times as long (Intel calls it a transition penalty), and qemu's own floating point would be SSE.
    has_avx2 = archspec.cpu.host() >= archspec.cpu.TARGETS["x86_64_v3"]
    return ["--extra-cflags=-march=x86-64-v3"] if has_avx2 else []


def _patch(tree: Path) -> None:
    for name, (text, other) in PATCHES.items():
        file = tree / name
        before = file.read_text()
        if before.count(text) != 1:
            raise CiError(f"qemu's {name} has {text!r} {before.count(text)} times, expected once: see PATCHES")
        file.write_text(before.replace(text, other))


@cache
def _qemu() -> Path:
    """The folder with qemu-aarch64 and the header for plugins."""
    source = debian.source(BOOTSTRAP["sources"]["suite"], "qemu")
    options = [*CONFIGURE, *_compiler_flags()]

    def build(target: Path) -> None:
        log("building qemu-aarch64 with plugins (about 3 minutes)")
        tree = target / "source"
        tree.mkdir()
        run(["tar", "-xf", source, "-C", tree, "--strip-components=1"])
        _patch(tree)
        (tree / "build").mkdir()
        build_log = target / "build.log"
        run(["../configure", *options], build_log, cwd=tree / "build")
        run(["ninja", "qemu-aarch64"], build_log, cwd=tree / "build")
        (tree / "build/qemu-aarch64").rename(target / "qemu-aarch64")
        (tree / "include/qemu/qemu-plugin.h").rename(target / "qemu-plugin.h")
        run(["rm", "-rf", tree])

    return cached_dir("qemu", [str(source), options, PATCHES], build)


@cache
def _plugin() -> Path:
    """The counter plugin."""
    source, qemu = ROOT / "ci/guest_counters.c", _qemu()

    def build(target: Path) -> None:
        flags = run(["pkg-config", "--cflags", "glib-2.0"]).split()
        run(
            [
                "gcc",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-shared",
                "-fPIC",
                *flags,
                f"-I{qemu}",
                source,
                "-o",
                target / "guest_counters.so",
            ]
        )

    return cached_dir("guest-counters", [str(qemu), tree_hash(source)], build) / "guest_counters.so"


@cache
def _root() -> Path:
    """A folder with the dynamic loader and the C library, for qemu's -L."""
    spec = BOOTSTRAP["emulated_root"]
    debs = debian.packages(spec["suite"], "arm64", spec["packages"])
    return cached_dir("emulated-root", [str(deb) for deb in debs], lambda target: debian.unpack(debs, target))


def prepare() -> None:
    """Makes what `run_program` needs, for callers that run several programs at the same time."""
    if not NATIVE:
        _plugin()
        _root()


def run_program(
    prefix: Path,
    program: Sequence[str | Path],
    cpu: str,
    counters: Path | None = None,
    hotspots: Path | None = None,
    root: Path | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Runs `program`, whose first word is a file of `prefix`'s bin/ or a path, in the prefix; returns what it printed.

    cpu: qemu's name of the CPU to emulate. counters, hotspots: files for the counter plugin. root: as for `emulated`.
    variables: environment variables, besides those of an activated prefix.
    """
    plugin = {"out": counters, "hotspots": hotspots}
    arguments = "".join(f",{name}={file}" for name, file in plugin.items() if file)
    return subprocess.run(
        emulated([prefix / "bin" / program[0], *program[1:]], cpu, arguments, root),
        env={**activated(prefix, cpu), **variables},
        capture_output=True,
        text=True,
        check=False,
        # Whatever a program leaves behind goes where it is thrown away.
        cwd=prefix,
    )


def emulated(
    words: Sequence[str | Path], cpu: str | None, plugin_arguments: str = "", root: Path | None = None
) -> list[str]:
    """The command for an AArch64 program: as it is on AArch64, under qemu elsewhere.

    cpu: None for the one that the variable QEMU_CPU names when the command runs. plugin_arguments: the
    counter plugin's; without any it is left out. root: a folder with the loader and the C library to use
    when emulating.
    """
    command = list(map(str, words))
    if NATIVE:
        return command
    plugin = ["-plugin", f"{_plugin()}{plugin_arguments}"] if plugin_arguments else []
    chosen = ["-cpu", cpu] if cpu else []
    return [str(_qemu() / "qemu-aarch64"), *chosen, "-L", str(root or _root()), *plugin, *command]


def activated(prefix: Path, cpu: str) -> dict[str, str]:
    """The environment of an activated prefix, and nothing of this machine's Python."""
    return {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix),
        "HOME": os.environ.get("HOME", "/"),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        # Threads that wait do so without executing instructions, which would be counted.
        "OMP_WAIT_POLICY": "passive",
        # Where names collide in the tables of Python, a small call takes 3 % more instructions.
        "PYTHONHASHSEED": "0",
        # What is in a prefix has been compiled: aclpkg.build.bytecode.
        "PYTHONDONTWRITEBYTECODE": "1",
        "QEMU_CPU": cpu,
    }
