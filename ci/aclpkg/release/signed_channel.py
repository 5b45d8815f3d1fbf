# SPDX-License-Identifier: MIT
"""Puts packages into a channel, whole or not at all.

A channel that is a folder looks like this:

    linux-aarch64/*.conda                    packages, and beside each its SBOM and provenance
    .index/TIME/linux-aarch64/repodata.json  the index, and so on
    .index/TIME/index.html                   the same for people
    .index/TIME/SERIAL                       which channel this is, its serial and date
    .index/TIME/SHA256SUMS, SHA256SUMS.sig   of all of it
    .index/current -> TIME
    linux-aarch64/repodata.json -> ../.index/current/linux-aarch64/repodata.json, and so on

Packages come first and are never replaced. Then one rename, of .index/current,
replaces index, manifest and signature together.
"""

import asyncio
import os
import shutil
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from rattler.index import index_fs

from ..base import environment
from ..base.files import beside, holding_lock, replace_symlink, replacing
from ..base.hashes import sha256
from ..base.messages import CiError, log
from ..base.paths import ROOT
from ..base.processes import run
from ..build import provenance, sbom
from . import abi, page

SUBDIRS = ("noarch", environment.PLATFORM)
INDEX = ".index"
MANIFEST, SIGNATURE = "SHA256SUMS", "SHA256SUMS.sig"
# ci/verify.sh refuses a channel with a lower serial than it has seen, which is an old copy.
SERIAL = "SERIAL"
# What the signature is for, so that one made for something else is worth nothing here.
NAMESPACE = "acl-qlinear-channel"


def publish(packages: list[Path], channel: Path, key: Path, name: str = "") -> list[str]:
    """Adds packages, each a file in SUBDIR/, to the folder `channel` and signs it with an OpenSSH key.

    name: which channel it is a copy of, wherever it lies; without, one that no other has.

    Returns the names of those that were not there yet. Raises CiError, and leaves
    the channel as it was, when a package is there with other contents, when it
    breaks the ABI of the last one with its version, and when the disk is full. May be
    killed at any time; the next call completes what it began.
    """
    for subdir in SUBDIRS:
        (channel / subdir).mkdir(parents=True, exist_ok=True)
        if (channel / subdir / "repodata.json").is_file() and not (channel / INDEX).is_dir():
            raise CiError(f"{channel} is a channel that ci/publish.sh did not make; give another folder, or a new one")
    with holding_lock(channel / ".lock"):
        new = [package for package in packages if _is_new(package, channel)]
        for package in new:
            abi.check(package, channel / package.parent.name)
        try:
            for stale in channel.glob("*/.*.partial"):
                stale.unlink()
            for package in new:
                log(f"publishing {package.name}")
                for file in (beside(package, sbom.SUFFIX), beside(package, provenance.SUFFIX), package):
                    if file.exists():
                        _copy(file, channel / package.parent.name / file.name)
            if not _is_complete(channel):
                _switch_index(channel, key, name)
        except OSError as error:
            for stale in channel.glob("*/.*.partial"):
                stale.unlink()
            raise CiError(f"cannot publish to {channel}: {error}; the channel is as it was") from error
    return [package.name for package in new]


def check_channel(folder: Path, name: str, signers: Path | None) -> None:
    """Checks a channel before anything of it is used. name: what the user calls it.

    signers: ci/verify.sh's file of those whom the user trusts; without it, only whether a signed
    channel is whole. Raises CiError.
    """
    if signers:
        log(run(["bash", ROOT / "ci/verify.sh", folder, signers]).strip())
    elif (folder / MANIFEST).exists():
        log(f"{name} is signed; --signers FILE would check by whom")
        run(["sha256sum", "--quiet", "--strict", "--check", MANIFEST], cwd=folder)


def _is_new(package: Path, channel: Path) -> bool:
    there = channel / package.parent.name / package.name
    if not there.exists():
        return True
    old, given = sha256(there), sha256(package)
    if old != given:
        raise CiError(
            f"{there} is published with sha256 {old}, and {package} has sha256 {given}: a published file is never "
            "replaced; raise the version or the build number in the recipe"
        )
    return False


def _copy(file: Path, target: Path) -> None:
    with replacing(target) as partial:
        shutil.copyfile(file, partial)
        with partial.open("rb") as content:
            os.fsync(content.fileno())


def _files(channel: Path) -> list[str]:
    """The paths of packages, and of what is beside them, in a channel."""
    found = (file for subdir in SUBDIRS for file in (channel / subdir).glob("[!.]*.conda*"))
    return sorted(file.relative_to(channel).as_posix() for file in found)


def _is_complete(channel: Path) -> bool:
    """Whether the current index has all that is there: what was killed may have left more."""
    manifest = channel / INDEX / "current" / MANIFEST
    if not manifest.exists():
        return False
    listed = {line[66:] for line in manifest.read_text().splitlines()}
    return listed.issuperset([*_files(channel), SERIAL]) and (channel / MANIFEST).exists()


def _switch_index(channel: Path, key: Path, name: str) -> None:
    home = channel / INDEX
    home.mkdir(exist_ok=True)
    current = home / "current"
    # Whatever a killed publish left.
    generations = {entry for entry in home.iterdir() if entry.is_dir() and not entry.is_symlink()}
    used = current.resolve() if current.is_symlink() else None
    for generation in generations - {used}:
        shutil.rmtree(generation)
    new = home / str(time.time_ns())
    try:
        names = _write_index(channel, new)
        (new / SERIAL).write_text(_next_serial(channel, name))
        (new / page.NAME).write_text(page.render(new, channel))
        names += [SERIAL, page.NAME]
        _write_manifest(channel, new, names, key)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    # They lead nowhere until there is a current index.
    for file in [*names, MANIFEST, SIGNATURE]:
        replace_symlink(channel / file, Path(*[".."] * file.count("/"), INDEX, "current", file))
    replace_symlink(current, Path(new.name))
    if used:
        shutil.rmtree(used, ignore_errors=True)


def _write_index(channel: Path, target: Path) -> list[str]:
    """Writes the index of the channel's packages into `target`, and returns the paths of its files."""
    for subdir in SUBDIRS:
        (target / subdir).mkdir(parents=True)
        for package in (channel / subdir).glob("[!.]*.conda"):
            os.link(package, target / subdir / package.name)
    # Shards are files of their own, and would come and go one by one.
    asyncio.run(index_fs(target, write_shards=False))
    for package in target.glob("*/*.conda"):
        package.unlink()
    for folder in target.glob(".*"):
        shutil.rmtree(folder)
    return sorted(file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())


def _next_serial(channel: Path, name: str) -> str:
    """The lines of the next SERIAL: "channel NAME", "serial NUMBER", "date TIME"."""
    last = channel / SERIAL
    before = dict(line.split(" ", 1) for line in last.read_text().splitlines()) if last.exists() else {}
    now = datetime.now(UTC)
    name = before.get("channel", name or str(uuid.uuid4()))
    # Seconds: higher in a copy that was made later, and than the last one whatever the clock says.
    serial = max(int(now.timestamp()), int(before.get("serial", 0)) + 1)
    return f"channel {name}\nserial {serial}\ndate {now:%Y-%m-%dT%H:%M:%SZ}\n"


def _write_manifest(channel: Path, target: Path, names: list[str], key: Path) -> None:
    files = {name: target / name for name in names} | {name: channel / name for name in _files(channel)}
    lines = [f"{sha256(file)}  {name}\n" for name, file in sorted(files.items())]
    (target / MANIFEST).write_text("".join(lines))
    run(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, target / MANIFEST])
    for file in target.rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            with file.open("rb") as content:
                os.fsync(content.fileno())
