# SPDX-License-Identifier: MIT
"""One archive with a channel that needs no other, for clusters without internet."""

import shutil
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlparse

from rattler import RepoDataRecord

from ..base import archives, environment
from ..base.files import beside, replacing
from ..base.hashes import sha256
from ..base.messages import CiError, log
from ..base.pins import EPOCH, MICROARCHITECTURES
from ..build import provenance, sbom
from . import signed_channel

# The folder in the archive.
NAME = "acl-qlinear-channel"


def needed(specs: list[str], channels: list[str]) -> list[RepoDataRecord]:
    """Every package that `specs` need, on CPUs of each microarchitecture, once."""
    found: dict[str, RepoDataRecord] = {}
    for microarchitecture in MICROARCHITECTURES.values():
        for record in environment.resolve(channels, specs, microarchitecture.archspec_cpu):
            found[str(record.url)] = record
        # One helper package per name of a CPU: whichever the user's is.
        for cpu in microarchitecture.cpus:
            for record in environment.resolve(channels, [f"acl-microarch * {microarchitecture.name}_*"], cpu):
                found[str(record.url)] = record
    return list(found.values())


def fetch(record: RepoDataRecord, target: Path) -> Path:
    """Copies or downloads a package, and what is beside it, into `target`/SUBDIR/, and checks its hash."""
    file = target / record.subdir / record.file_name
    file.parent.mkdir(parents=True, exist_ok=True)
    address = urlparse(str(record.url))
    if address.scheme == "file":
        here = Path(unquote(address.path))
        for part in (here, beside(here, sbom.SUFFIX), beside(here, provenance.SUFFIX)):
            if part.exists():
                shutil.copyfile(part, file.parent / part.name)
    else:
        with urllib.request.urlopen(str(record.url), timeout=60) as answer, file.open("wb") as out:
            shutil.copyfileobj(answer, out)
    expected = record.sha256.hex() if record.sha256 else None
    if expected and sha256(file) != expected:
        raise CiError(f"{record.url} has sha256 {sha256(file)}, expected {expected}, as its channel says: try again")
    return file


def bundle(target: Path, specs: list[str], channels: list[str], key: Path) -> int:
    """Writes the archive `target`, which appears when it is whole; returns how many packages are in it."""
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        packages, channel = Path(name) / "packages", Path(name) / NAME
        files = [fetch(record, packages) for record in needed(specs, channels)]
        signed_channel.publish(files, channel, key, f"bundle of {' '.join(sorted(specs))}")
        log(f"writing {target.name}")
        # The links' targets under the links' names: any program unpacks files.
        paths = [channel, *sorted(path for path in channel.rglob("*") if not _is_own(path.relative_to(channel)))]
        entries = ((path.resolve(), path.relative_to(channel.parent).as_posix()) for path in paths)
        with replacing(target) as partial, partial.open("wb") as file:
            archives.write_tar(file, entries, EPOCH)
        return len(files)


def _is_own(path: Path) -> bool:
    """Whether a path in a channel is what ci/publish.sh alone needs."""
    return path.parts[0] in (signed_channel.INDEX, ".lock")
