"""ci/bundle.sh: one archive with a channel that needs no other, for clusters without internet."""

import argparse
import io
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlparse

from rattler import RepoDataRecord

from . import build, modules, prefix
from .attest import PROVENANCE_SUFFIX, SBOM_SUFFIX, beside, sha256
from .cache import CiError, command, say
from .emulator import CPUS
from .pins import EPOCH, VARIANTS
from .publish import publish

# The folder in the archive.
NAME = "acl-qlinear-channel"


def needed(specs: list[str], channels: list[str]) -> list[RepoDataRecord]:
    """Every package that `specs` need, on CPUs of each microarchitecture, once."""
    found: dict[str, RepoDataRecord] = {}
    for cpus in CPUS.values():
        for record in prefix.resolve(channels, specs, cpus[0].replace("-", "_")):
            found[str(record.url)] = record
    # One helper package per name of a CPU: whichever the user's is.
    for cpu in VARIANTS["neoverse_v1_cpu"]:
        for record in prefix.resolve(channels, ["acl-microarch"], cpu):
            found[str(record.url)] = record
    return list(found.values())


def fetch(record: RepoDataRecord, target: Path) -> Path:
    """Copies or downloads a package, and what is beside it, into `target`/SUBDIR/, and checks its hash."""
    file = target / record.subdir / record.file_name
    file.parent.mkdir(parents=True, exist_ok=True)
    address = urlparse(str(record.url))
    if address.scheme == "file":
        here = Path(unquote(address.path))
        for part in (here, beside(here, SBOM_SUFFIX), beside(here, PROVENANCE_SUFFIX)):
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
        publish(files, channel, key)
        partial = Path(name) / target.name
        say(f"writing {target.name}")
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="ci/bundle.sh", description=__doc__)
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="the .tar file to write")
    parser.add_argument("--key", type=Path, required=True, help="the private OpenSSH key that signs it")
    parser.add_argument(
        "--spec", action="append", default=[], metavar="SPEC",
        help="what to put in, with all that it needs; may be repeated (default: what ci/deploy-module.sh installs)",
    )  # fmt: skip
    options = parser.parse_args()
    if not options.key.is_file():
        raise CiError(f"--key is {options.key}, expected a private OpenSSH key; ssh-keygen -t ed25519 -f KEY makes one")
    if not options.archive.absolute().parent.is_dir():
        raise CiError(f"ARCHIVE is {options.archive}, expected a file in a folder that exists")
    channels = [build.CHANNEL.as_uri(), *build.upstream_of_built_channel()]
    count = bundle(options.archive.absolute(), options.spec or ["acl-qlinear", *modules.EXTRA], channels, options.key)
    print(f"{options.archive}: {count} packages, {options.archive.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    command(main)
