# SPDX-License-Identifier: MIT
"""A cluster: Lmod and Environment Modules on emulated CPUs, what ci/deploy-module.sh deploys, and Slurm."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aclpkg.base.cache import cached_dir
from aclpkg.base.paths import ROOT
from aclpkg.base.processes import run
from aclpkg.build import dist
from aclpkg.inputs import debian, emulator
from aclpkg.inputs.bootstrap import BOOTSTRAP

from ..conftest import wait_for
from ..emulation import command_in_root, write_python

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
    return cached_dir("module-systems", [str(deb) for deb in debs], lambda target: debian.unpack(debs, target))


@pytest.fixture(scope="session")
def module_command(module_systems: Path) -> Callable[[str, str], list[str]]:
    """module_command(kind, cpu): the command below the shell function `module`, on an emulated CPU."""

    def command(kind: str, cpu: str) -> list[str]:
        program, script = PROGRAMS[kind]
        return command_in_root(module_systems, [program, module_systems / script], cpu)

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
            "PATH": "/usr/bin:/bin",
            "HOME": "/",
            "LC_ALL": "C.UTF-8",
            "USER": "user",
            "MODULEPATH": f"{tree}/modulefiles/{kind}",
            "TCL_LIBRARY": f"{module_systems}/usr/share/tcltk/tcl8.6",
            **variables,
        }
        done = subprocess.run(
            ["bash", "-c", text],
            env=environment,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        # Both wrap lines, and mark them as they like.
        return " ".join(done.stdout.split())

    return run


def deploy(root: Path, *options: str, channels: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """What ci/deploy-module.sh answers."""
    channels = channels or [str(dist.CHANNEL), *dist.upstream_of_built_channel()]
    words = [word for channel in channels for word in ("--channel", channel)]
    return subprocess.run(
        ["bash", ROOT / "ci/deploy-module.sh", "--root", root, *words, *options],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with both modules, of the packages in dist/channel."""
    root = tmp_path_factory.mktemp("modules")
    done = deploy(root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


# Slurm

NODES = 3
SETTINGS_OF_PROGRAMS = ("OMP_", "GOMP_", "OPENBLAS_", "PYTHON", "TORCH", "MALLOC_", "GLIBC_")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket
SlurmUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdTimeout=5
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PartitionName=arm Nodes=arm[1-{nodes}] Default=YES State=UP
"""
NODE = "NodeName=arm{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1\n"


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of three nodes on this machine; the folder with its files."""
    if os.getuid():
        pytest.skip("Slurm's daemons are run by root, and this is another user")
    home = tmp_path_factory.mktemp("slurm")
    key = home / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
    run(["munged", "--force", f"--key-file={key}", *(f"--{name}={home / file}" for name, file in files.items())])
    (home / "state").mkdir()
    conf = home / "slurm.conf"
    host = run(["hostname", "-s"]).strip()
    ports = free_ports(NODES + 1)
    nodes = [NODE.format(number=number, host=host, port=ports[number]) for number in range(1, NODES + 1)]
    conf.write_text("".join(nodes) + CONFIGURATION.format(home=home, host=host, nodes=NODES, ports=ports))
    try:
        run(["slurmctld", "-f", conf])
        for number in range(1, NODES + 1):
            run(["slurmd", "-N", f"arm{number}", "-f", conf])
        wait_for(lambda: slurm_answers(home, "sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(NODES))
        yield home
    finally:
        for file in home.glob("*.pid"):
            kill(file)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def slurm_answers(home: Path, *words: str) -> str:
    environment = {**os.environ, "SLURM_CONF": str(home / "slurm.conf")}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment).stdout


def kill(pid_file: Path) -> None:
    if pid_file.exists() and (text := pid_file.read_text().strip()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(text), signal.SIGKILL)


@pytest.fixture(scope="session")
def environment(slurm: Path, deployed: Path, lmod: Path) -> dict[str, str]:
    """What a user of the cluster has: Slurm, and `module` as Lmod defines it."""
    programs = slurm / "programs"
    programs.mkdir()
    write_python(programs / "python", "neoverse-v1")
    (programs / "python3").symlink_to("python")
    shutil.copy(next(deployed.glob("software/neoverse_v1/acl-qlinear/*/bin/acl-qlinear")), programs)
    # The module's own programs are for AArch64: these run them.
    module = f'() {{ eval "$({lmod} bash "$@")"; PATH={programs}:$PATH; }}'
    # Settings of whoever starts the tests, which Slurm would take along.
    own = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS_OF_PROGRAMS)}
    return {
        **own,
        "RFM_COLORIZE": "n",
        "SLURM_CONF": str(slurm / "slurm.conf"),
        "LMOD_CMD": str(lmod),
        "LMOD_VERSION": "8.6.19",
        "MODULEPATH": f"{deployed}/modulefiles/lmod",
        "BASH_FUNC_module%%": module,
    }
