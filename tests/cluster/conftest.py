"""Lmod and Environment Modules for AArch64 on emulated CPUs, and what ci/deploy-module.sh deploys."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from acl_ci import build, debian, emulator
from acl_ci.bootstrap import BOOTSTRAP
from acl_ci.cache import ROOT, folder

KINDS = ("lmod", "tcl")
PROGRAMS = {
    "lmod": ["usr/bin/lua5.3", "usr/share/lmod/lmod/libexec/lmod"],
    "tcl": ["usr/bin/tclsh8.6", "usr/lib/aarch64-linux-gnu/modulecmd.tcl"],
}


@pytest.fixture(scope="session")
def module_systems() -> Path:
    """A folder with both programs, for AArch64, as Debian packages them."""
    if emulator.NATIVE:
        pytest.skip("both module systems are tried on emulated CPUs, of which this machine has none")
    spec = BOOTSTRAP["module_systems"]
    debs = debian.packages(spec["suite"], "arm64", spec["packages"])
    return folder("module-systems", [str(deb) for deb in debs], lambda target: debian.unpack(debs, target))


@pytest.fixture(scope="session")
def module_command(module_systems: Path) -> Callable[[str, str], list[str]]:
    """module_command(kind, cpu): the command below the shell function `module`, on an emulated CPU."""

    def command(kind: str, cpu: str) -> list[str]:
        program, script = PROGRAMS[kind]
        return emulator.run_in_root(module_systems, [program, module_systems / script], cpu)

    return command


@pytest.fixture(scope="session")
def lmod(module_command: Callable[[str, str], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that LMOD_CMD names where Lmod is installed, on an emulated Neoverse V1."""
    program = tmp_path_factory.mktemp("lmod") / "lmod"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(module_command("lmod", "neoverse-v1"))} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def in_shell(module_systems: Path, module_command: Callable[[str, str], list[str]]) -> Callable[..., str]:
    """in_shell(kind, tree, script, cpu): what bash prints on both streams for a script that uses `module`."""

    def run(kind: str, tree: Path, script: str, cpu: str = "neoverse-v1", **variables: str) -> str:
        command = shlex.join(module_command(kind, cpu))
        text = f'module() {{ eval "$({command} bash "$@")"; }}\n{script}'
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8", "USER": "user",
            "MODULEPATH": f"{tree}/modulefiles/{kind}",
            "TCL_LIBRARY": f"{module_systems}/usr/share/tcltk/tcl8.6", **variables,
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "-c", text], env=environment, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        # Both wrap lines, and mark them as they like.
        return " ".join(done.stdout.split())

    return run


def deploy(root: Path, *options: str, channels: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """What ci/deploy-module.sh answers."""
    channels = channels or [str(build.CHANNEL), *build.upstream_of_built_channel()]
    words = [word for channel in channels for word in ("--channel", channel)]
    return subprocess.run(
        ["bash", ROOT / "ci/deploy-module.sh", "--root", root, *words, *options],
        env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with both modules, of the packages in dist/channel."""
    root = tmp_path_factory.mktemp("modules")
    done = deploy(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root
