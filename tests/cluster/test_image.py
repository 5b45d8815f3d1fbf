# SPDX-License-Identifier: MIT
"""ci/image.sh: the image is the same again, tools read it, and what is in it works."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from aclpkg.base import pins
from aclpkg.base.hashes import sha256
from aclpkg.base.paths import CACHE, ROOT
from aclpkg.base.processes import run
from aclpkg.deploy import image
from aclpkg.inputs import emulator
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from ..emulation import command_in_root

LARGEST = 900e6


def make(output: Path, *options: str, umask: int = 0o022, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ROOT / "ci/image.sh", *options, output],
        env={**os.environ, **variables},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The layout, and what ci/image.sh printed."""
    layout = tmp_path_factory.mktemp("image") / "layout"
    done = make(layout)
    assert done.returncode == 0, done.stderr
    return layout, done.stdout


@pytest.fixture(scope="module")
def rootfs(made: tuple[Path, str]) -> Path:
    """The image's files, as umoci unpacks them."""
    bundle = made[0].with_name("bundle")
    entry = json.loads((made[0] / "index.json").read_text())["manifests"][0]
    tag = entry["annotations"]["org.opencontainers.image.ref.name"]
    run(["umoci", "unpack", "--rootless", "--image", f"{made[0]}:{tag}", bundle])
    return bundle / "rootfs"


def test_same_digest_again(made: tuple[Path, str], tmp_path: Path) -> None:
    layout, printed = made
    again = make(tmp_path / "other", umask=0o077, TZ="Pacific/Kiritimati", USER="somebody", LC_ALL="C")
    assert again.returncode == 0, again.stderr
    assert re.match(r"sha256:[0-9a-f]{64}\n", printed) and again.stdout.splitlines()[0] == printed.splitlines()[0]
    assert sha256(tmp_path / "other.tar") == sha256(layout.with_name("layout.tar"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "other.tar"]


def test_size(made: tuple[Path, str], rootfs: Path) -> None:
    stated = int(re.findall(r"unpacked (\d+) MB", made[1])[0]) * 1e6
    files = [p for p in rootfs.rglob("*") if p.is_file() and not p.is_symlink()]
    assert abs(sum(p.stat().st_size for p in files) - stated) < 1e6 and stated < LARGEST


def test_tools_read_it(made: tuple[Path, str], tmp_path: Path) -> None:
    layout, printed = made
    archive = layout.with_name("layout.tar")
    seen = json.loads(run(["skopeo", "inspect", f"oci:{layout}"]))
    assert seen["Digest"] == printed.splitlines()[0] and seen["Architecture"] == "arm64"
    assert seen["Labels"]["org.opencontainers.image.title"] == "acl-qlinear"
    assert seen["Labels"]["org.opencontainers.image.created"].startswith(pins.VARIANTS["source_date"][0])
    config = json.loads(run(["skopeo", "inspect", "--config", f"oci:{layout}"]))
    assert config["config"]["User"] == "1000:1000"
    # What `docker load` and `podman load` read, and what Apptainer does.
    for number, kind in enumerate(("docker-archive", "oci-archive")):
        target = tmp_path / str(number)
        run(["skopeo", "copy", "--quiet", "--insecure-policy", f"{kind}:{archive}", f"oci:{target}"])
        copied = json.loads(run(["skopeo", "inspect", "--config", f"oci:{target}"]))
        assert copied["rootfs"] == config["rootfs"]


def test_every_blob_has_its_digest(made: tuple[Path, str]) -> None:
    blobs = list((made[0] / "blobs/sha256").iterdir())
    assert len(blobs) == 5 and all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)


def test_contents(rootfs: Path) -> None:
    """Nothing of this machine, no caches, one time, Debian's licences, an SBOM of all of it."""
    paths = list(rootfs.rglob("*"))
    assert not [p for p in paths if p.name in ("__pycache__", "pkgs")]
    assert {int(p.lstat().st_mtime) for p in paths if p.is_file() and not p.is_symlink()} == {pins.EPOCH}
    for file in (rootfs / image.PREFIX / "conda-meta").glob("*.json"):
        text = file.read_text()
        assert "file:" not in text and f"{CACHE.parent}/" not in text and "/tmp/" not in text
    assert (rootfs / "usr/share/doc/bash/copyright").exists()
    text = (rootfs / image.SBOM).read_text()
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    names = {component["name"] for component in json.loads(text)["components"]}
    assert {"acl-qlinear", "arm-compute-library", "pytorch", "numpy", "libc6", "bash"} <= names
    packages = {json.loads(f.read_text())["name"] for f in (rootfs / image.PREFIX / "conda-meta").glob("*.json")}
    assert packages <= names


def test_smoke(rootfs: Path) -> None:
    """The benchmark's check of results, with the image's own loader and C library."""
    cpu, home = emulator.CPUS["armv8_2a"][0], rootfs / image.PREFIX
    words = command_in_root(rootfs, [f"{image.PREFIX}/bin/python", "-m", "acl_qlinear.bench", "--check"], cpu)
    environment = emulator.activated(home, cpu)
    done = subprocess.run(words, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "results are right" in done.stdout, done.stdout + done.stderr
    if not emulator.NATIVE:
        shell = command_in_root(rootfs, ["bin/sh", "-c", "echo started $PATH"], "neoverse-n1")
        assert run(list(shell), env={"PATH": "/bin"}) == "started /bin\n"


def test_containerfile_makes_the_same(made: tuple[Path, str], tmp_path: Path) -> None:
    """With Debian's buildah: the same files' layers, user, environment and command."""
    layout, printed = made
    arguments = re.findall(r"for env/container/Containerfile: (.*)", printed)[0].split()
    assert len(arguments) == 6
    storage = ["--root", tmp_path / "storage", "--runroot", tmp_path / "run", "--storage-driver", "vfs"]
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    words = ["bud", "-q", "--platform", "linux/arm64", "-t", "again", "-f", ROOT / "env/container/Containerfile"]
    done = subprocess.run(
        ["buildah", *storage, *words, *arguments, layout], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = json.loads(run(["buildah", *storage, "inspect", "--type", "image", "again"], env=environment))["OCIv1"]
    ours = json.loads(run(["skopeo", "inspect", "--config", f"oci:{layout}"]))
    for key in ("User", "WorkingDir", "Cmd", "Env"):
        assert sorted(built["config"][key]) == sorted(ours["config"][key])
    assert built["architecture"] == "arm64"


def test_bad_arguments(tmp_path: Path) -> None:
    done = make(tmp_path / "layout", "--lock", "use-pytorch1.0")
    assert done.returncode == 1 and "use-pytorch1.0 is not in " in done.stderr and "use-pytorch2-9" in done.stderr
    (tmp_path / "mine").mkdir()
    done = make(tmp_path / "mine")
    assert done.returncode == 1 and "mine is there and is no OCI layout" in done.stderr
    done = make(tmp_path / "no" / "layout")
    assert done.returncode == 1 and "expected a folder in one that exists" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
