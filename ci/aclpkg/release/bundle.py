"""One archive with a channel that needs no other, for clusters without internet."""

import io
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlparse

from rattler import RepoDataRecord

from ..base import environment
from ..base.files import beside
from ..base.hashes import sha256
from ..base.messages import CiError, log
from ..base.pins import EPOCH, VARIANTS
from ..build import provenance, sbom
from ..inputs import emulator
from . import signed_channel

# The folder in the archive.
NAME = "acl-qlinear-channel"


def needed(specs: list[str], channels: list[str]) -> list[RepoDataRecord]:
    """Every package that `specs` need, on CPUs of each microarchitecture, once."""
    found: dict[str, RepoDataRecord] = {}
    for cpus in emulator.CPUS.values():
        for record in environment.resolve(channels, specs, cpus[0].replace("-", "_")):
            found[str(record.url)] = record
    # One helper package per name of a CPU: whichever the user's is.
    for cpu in VARIANTS["neoverse_v1_cpu"]:
        for record in environment.resolve(channels, ["acl-microarch"], cpu):
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
        signed_channel.publish(files, channel, key)
        partial = Path(name) / target.name
        log(f"writing {target.name}")
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
            for path in [channel, *sorted(channel.rglob("*"))]:
                relative = path.relative_to(channel)
                # The links' targets under the links' names: any program unpacks files.
                if relative.parts[:1] in ((".index",), (".lock",)):
                    continue
                entry = tarfile.TarInfo(f"{NAME}/{relative}" if relative.parts else NAME)
                entry.mtime, entry.mode = EPOCH, 0o755 if path.is_dir() else 0o644
                entry.type = tarfile.DIRTYPE if path.is_dir() else tarfile.REGTYPE
                entry.size = 0 if path.is_dir() else path.stat().st_size
                with path.open("rb") if path.is_file() else io.BytesIO() as content:
                    archive.addfile(entry, content)
        partial.rename(target)
        return len(files)
