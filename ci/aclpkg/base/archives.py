# SPDX-License-Identifier: MIT
"""Archives without a trace of who made them, when, and where: tar files, and conda packages."""

import io
import json
import tarfile
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import zstandard
from rattler.package_streaming import extract

from .files import replacing


class SupportsWrite(Protocol):
    """What an archive can be written to."""

    def write(self, data: bytes, /) -> object: ...


# Higher levels need more memory than small machines have for one percent.
LEVEL = 19


def unpack_package(package: Path, target: Path) -> None:
    """Unpacks all of a .conda file into a folder."""
    extract(package, target)


def pack_package(root: Path, package: Path, epoch: int, level: int = LEVEL) -> None:
    """Makes a .conda file of a folder, sorted, owned by nobody, and with one time.

    By hand, since rattler's writer makes the files below info/ itself.
    """
    stem = package.name.removesuffix(".conda")
    paths = sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    metadata = json.dumps({"conda_pkg_format_version": 2}).encode()
    parts = [("metadata.json", metadata)]
    for part, inside in (("pkg", False), ("info", True)):
        members = [path for path in paths if (path.relative_to(root).parts[0] == "info") == inside]
        buffer = io.BytesIO()
        write_tar(buffer, ((path, path.relative_to(root).as_posix()) for path in members), epoch)
        parts.append((f"{part}-{stem}.tar.zst", zstandard.ZstdCompressor(level=level).compress(buffer.getvalue())))
    date = datetime.fromtimestamp(epoch, UTC).timetuple()[:6]
    with replacing(package) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as outer:
            for name, content in parts:
                outer.writestr(zipfile.ZipInfo(name, date), content)
        partial.chmod(0o644)


def write_tar(
    file: SupportsWrite,
    entries: Iterable[tuple[Path, str]],
    epoch: int,
    special: dict[str, tuple[int, int]] | None = None,
) -> None:
    """Writes files, links and folders into an archive, each under the name beside it.

    All have the time `epoch`, in seconds, are root's and of an ordinary mode, but for
    those in `special`: owner and mode by name.
    """
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for path, name in entries:
            entry = archive.gettarinfo(path, name)
            ordinary = 0o777 if entry.issym() else 0o755 if entry.mode & 0o100 else 0o644
            owner, entry.mode = (special or {}).get(name, (0, ordinary))
            entry.uid = entry.gid = owner
            entry.uname = entry.gname = ""
            entry.mtime = epoch
            _add(archive, entry, path)


def _add(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    # Links between files: each is a file of its own.
    if entry.islnk():
        entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)
