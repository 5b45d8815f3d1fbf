# SPDX-License-Identifier: MIT
"""ci/deploy-module.sh, with Lmod and Environment Modules for AArch64 on emulated CPUs."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base import archives, pins
from aclpkg.base.paths import ROOT
from aclpkg.build import dist
from aclpkg.release import signed_channel

from ..conftest import ACL_VERSION
from .conftest import KINDS, deploy

InShell = Callable[..., str]
VERSION = "0.2.0"
# What the module systems keep their own state in.
STATE = re.compile(r"_ModuleTable|__LMOD|LMOD_|LOADEDMODULES|_LMFILES_|__MODULES|MODULES_|_=|SHLVL|BASH_FUNC")


def variables(text: str) -> dict[str, str]:
    """What `env -0` printed, without the module system's own."""
    entries = (entry.split("=", 1) for entry in text.split("\\0") if "=" in entry)
    return {name.strip(): value for name, value in entries if not STATE.match(name.strip())}


ENV = r"env -0 | sed 's/\x0/\\0/g'"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cpu", "expected"), [("neoverse-v1", "neoverse_v1"), ("neoverse-n1", "armv8_2a"), ("a64fx", "armv8_2a")]
)
def test_build_fits_the_cpu(in_shell: InShell, deployed: Path, kind: str, cpu: str, expected: str) -> None:
    printed = in_shell(kind, deployed, "module load acl-qlinear; echo $CONDA_PREFIX; command -v python", cpu)
    home = f"{deployed}/software/{expected}/acl-qlinear/{VERSION}"
    assert printed == f"{home} {home}/bin/python"


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_fits(in_shell: InShell, deployed: Path, kind: str) -> None:
    """A Cortex-A72 has Armv8.0."""
    printed = in_shell(kind, deployed, "module load acl-qlinear; echo [$CONDA_PREFIX]", "cortex-a72")
    assert f"acl-qlinear {VERSION} has no build for this node's CPU, which lacks what each needs: " in printed
    assert "armv8_2a needs atomics, fphp, asimdhp, asimdrdm. Use a node with Armv8.2-A or newer." in printed
    assert "[]" in printed


@pytest.mark.parametrize("kind", KINDS)
def test_override(in_shell: InShell, deployed: Path, kind: str) -> None:
    script = "export ACL_QLINEAR_MICROARCHITECTURE={}; module load acl-qlinear; echo $CONDA_PREFIX"
    assert "/armv8_2a/" in in_shell(kind, deployed, script.format("armv8_2a"))
    printed = in_shell(kind, deployed, script.format("zen5"))
    assert "ACL_QLINEAR_MICROARCHITECTURE is 'zen5', expected one of: neoverse_v1, armv8_2a" in printed


@pytest.mark.parametrize("kind", KINDS)
def test_unload_restores_the_environment(in_shell: InShell, deployed: Path, kind: str) -> None:
    """Also where it is unloaded on a node with another CPU, and an environment was active before."""
    script = f"""
        {ENV}; echo ===; module load acl-qlinear; {ENV}; echo ===
        export ACL_QLINEAR_MICROARCHITECTURE=armv8_2a; module unload acl-qlinear
        unset ACL_QLINEAR_MICROARCHITECTURE; {ENV}
    """
    printed = in_shell(kind, deployed, script, CONDA_PREFIX="/before", PYTHONPATH="/mine", ACL_QLINEAR_ROOT="/other")
    before, loaded, after = map(variables, printed.split("==="))
    home = f"{deployed}/software/neoverse_v1/acl-qlinear/{VERSION}"
    changed = {name: value for name, value in loaded.items() if before.get(name) != value}
    assert changed == {"PATH": f"{home}/bin:/usr/bin:/bin", "CONDA_PREFIX": home, "ACL_QLINEAR_ROOT": home}
    assert after == before and before["CONDA_PREFIX"] == "/before"


@pytest.mark.parametrize("kind", KINDS)
def test_help_whatis_and_conflict(in_shell: InShell, deployed: Path, kind: str) -> None:
    printed = in_shell(kind, deployed, "module help acl-qlinear; module whatis acl-qlinear arm-compute-library")
    assert "acl-qlinear doctor" in printed and f"Version: {ACL_VERSION}" in printed and "Name: acl-qlinear" in printed
    roots = "echo [$ACL_QLINEAR_ROOT][$ARM_COMPUTE_LIBRARY_ROOT]"
    printed = in_shell(kind, deployed, f"module load acl-qlinear; module load arm-compute-library; {roots}")
    # Lmod loads the second in the first's place; Environment Modules refuses.
    first, second = re.findall(r"\[(.*)\]\[(.*)\]", printed)[0]
    assert bool(first) != bool(second), printed


@pytest.mark.parametrize("kind", KINDS)
def test_acl_alone_can_be_compiled_against(
    in_shell: InShell, deployed: Path, kind: str, compiler: Path, run_in: Callable, tmp_path: Path
) -> None:
    program = tmp_path / "gemm"
    sysroot = compiler / "aarch64-conda-linux-gnu/sysroot"
    words = f"{compiler}/bin/aarch64-conda-linux-gnu-g++ --sysroot={sysroot} -std=c++14"
    printed = in_shell(
        kind,
        deployed,
        f"""module load arm-compute-library
        {words} {ROOT}/tests/packages/consumer/gemm.cpp -o {program} $(pkg-config --cflags --libs arm-compute-library) \
            -Wl,-rpath,$ARM_COMPUTE_LIBRARY_ROOT/lib -Wl,--allow-shlib-undefined
        echo $CMAKE_PREFIX_PATH $LD_LIBRARY_PATH""",
    )
    prefix = deployed / f"software/neoverse_v1/arm-compute-library/{pins.VARIANTS['acl_version'][0]}"
    assert printed.endswith(str(prefix)), printed
    done = run_in(prefix, [program], "neoverse-v1")
    assert done.returncode == 0, done.stdout + done.stderr


def with_version(channel: Path, version: str, target: Path) -> Path:
    """A copy of a channel of ours with acl-qlinear as another version."""
    for package in channel.glob("*/acl-qlinear-*.conda"):
        root = target / "root"
        archives.unpack_package(package, root)
        index = root / "info/index.json"
        record = json.loads(index.read_text())
        index.write_text(json.dumps({**record, "version": version}))
        new = target / "packages" / package.parent.name / package.name.replace(record["version"], version)
        new.parent.mkdir(parents=True, exist_ok=True)
        archives.pack_package(root, new, pins.EPOCH)
        shutil.rmtree(root)
    for package in channel.glob("*/*.conda"):
        if not package.name.startswith("acl-qlinear-"):
            home = target / "packages" / package.parent.name
            home.mkdir(exist_ok=True)
            shutil.copy(package, home)
    key = target / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    signed_channel.publish(sorted((target / "packages").glob("*/*.conda")), target / "channel", key)
    return target / "channel"


def test_versions_side_by_side(in_shell: InShell, deployed: Path, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    shutil.copytree(deployed, root, symlinks=True, copy_function=os.link)
    newer = with_version(dist.CHANNEL, "0.3.0", tmp_path)
    done = deploy(root, "--version", "0.3.0", channels=[str(newer), *dist.upstream_of_built_channel()])
    assert done.returncode == 0, done.stderr
    assert re.search(r"acl-qlinear +0\.2\.0 +neoverse_v1, armv8_2a", done.stdout)
    assert re.search(r"acl-qlinear +0\.3\.0 +yes +neoverse_v1, armv8_2a", done.stdout)
    for kind in KINDS:
        load = "module load {}; echo $CONDA_PREFIX"
        assert in_shell(kind, root, load.format("acl-qlinear")).endswith("/acl-qlinear/0.3.0")
        assert in_shell(kind, root, load.format(f"acl-qlinear/{VERSION}")).endswith(f"/acl-qlinear/{VERSION}")

    done = deploy(root, "--remove", "0.3.0")
    assert done.returncode == 0 and "0.3.0" not in done.stdout and ACL_VERSION in done.stdout
    assert not list(root.glob("software/*/acl-qlinear/0.3.0*"))
    for kind in KINDS:
        printed = in_shell(kind, root, "module load acl-qlinear; echo $CONDA_PREFIX; module avail")
        assert f"/acl-qlinear/{VERSION}" in printed and "0.3.0" not in printed
    done = deploy(root, "--remove", "0.3.0")
    assert done.returncode == 1 and f"acl-qlinear 0.3.0 is not in {root}, which has: {VERSION}" in done.stderr
    # The last one takes its ACL with it.
    assert deploy(root, "--remove", VERSION).returncode == 0
    assert "acl" not in deploy(root, "--list").stdout and not list(root.glob("software/*/*/*"))


def test_unknown_version_and_channel(tmp_path: Path) -> None:
    done = deploy(tmp_path / "tree", "--version", "9.9")
    assert done.returncode == 1 and "acl-qlinear ==9.9 cannot be installed for neoverse_v1" in done.stderr
    assert not list((tmp_path / "tree").glob("modulefiles*"))
    done = deploy(tmp_path / "tree", channels=[str(tmp_path / "none.tar")])
    assert done.returncode == 1 and "none.tar, expected a bundle of ci/bundle.sh" in done.stderr


def test_killed_half_way(in_shell: InShell, tmp_path: Path) -> None:
    """Killed when the first prefixes are there, nothing is shown; the next run completes it."""
    root = tmp_path / "tree"
    channels = [str(dist.CHANNEL), *dist.upstream_of_built_channel()]
    words = [word for channel in channels for word in ("--channel", channel)]
    words = ["bash", str(ROOT / "ci/deploy-module.sh"), "--root", str(root), *words]
    running = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list(root.glob("software/*/acl-qlinear/*")):
        assert running.poll() is None
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not list(root.glob("modulefiles*"))
    for kind in KINDS:
        assert "acl-qlinear" not in in_shell(kind, root, "module avail").replace(str(root), "")
    assert deploy(root).returncode == 0
    # ... and what was killed later does not show either.
    half = root / "software/neoverse_v1/acl-qlinear/0.1.0"
    shutil.copytree(root / f"software/neoverse_v1/acl-qlinear/{VERSION}/conda-meta", half / "conda-meta")
    done = deploy(root)
    assert done.returncode == 0 and "0.1.0" not in done.stdout


def test_copied_and_read_only(in_shell: InShell, deployed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(deployed, copy, symlinks=True, copy_function=os.link)
    modes = {path: path.stat().st_mode for path in [copy, *copy.rglob("*")] if path.is_dir() and not path.is_symlink()}
    for path in modes:
        path.chmod(0o555)
    try:
        for kind in KINDS:
            printed = in_shell(kind, copy, "module load acl-qlinear; echo $CONDA_PREFIX")
            assert printed == f"{copy}/software/neoverse_v1/acl-qlinear/{VERSION}"
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_from_a_bundle_without_network(tmp_path: Path) -> None:
    key, archive = tmp_path / "key", tmp_path / "bundle.tar"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    subprocess.run(["bash", ROOT / "ci/bundle.sh", "--key", key, archive], check=True, capture_output=True)
    offline = ["unshare", "--net"] if subprocess.run(["unshare", "--net", "true"], check=False).returncode == 0 else []
    signers, strangers = tmp_path / "signers", tmp_path / "strangers"
    public = key.with_suffix(".pub").read_text()
    signers.write_text(f"publisher {public}")
    strangers.write_text(f"stranger {re.sub('AAAA[^ ]{40}', 'AAAAC3NzaC1lZDI1NTE5AAAAI' + 'A' * 19, public)}")

    def deploy_by(trusted: Path) -> subprocess.CompletedProcess[str]:
        words = ["bash", ROOT / "ci/deploy-module.sh", "--root", tmp_path / "tree", "--channel", archive]
        state = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
        command = [*offline, *words, "--signers", trusted]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=state)

    done = deploy_by(strangers)
    assert done.returncode == 1 and "is not signed by anyone in" in done.stderr
    assert not list((tmp_path / "tree").glob("software/*"))
    done = deploy_by(signers)
    assert done.returncode == 0 and "signed by publisher" in done.stderr, done.stderr
    assert re.search(r"acl-qlinear +0\.2\.0 +yes +neoverse_v1, armv8_2a", done.stdout)
