"""Archives without a trace of who made them, when, and where."""

import io
import json
import tarfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import zstandard

# Higher levels need more memory than small machines have for one percent.
LEVEL = 19


def unpack_package(package: Path, target: Path) -> None:
    """Unpacks all of a .conda file into a folder."""
    with zipfile.ZipFile(package) as outer:
        for member in outer.namelist():
            if member.endswith(".tar.zst"):
                with (
                    outer.open(member) as packed,
                    zstandard.ZstdDecompressor().stream_reader(packed) as plain,
                    tarfile.open(fileobj=plain, mode="r|") as archive,
                ):
                    # Debian 12's Python has no filters yet, and newer ones warn where none is chosen.
                    archive.extraction_filter = getattr(tarfile, "tar_filter", None)
                    archive.extractall(target)


def pack_package(root: Path, package: Path, epoch: int) -> None:
    """Makes a .conda file of a folder, sorted, owned by nobody, and with one time.

    By hand, since conda-package-streaming and rattler stamp the outer archive with the time of day.
    """
    stem = package.name.removesuffix(".conda")
    paths = sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    metadata = json.dumps({"conda_pkg_format_version": 2}).encode()
    parts = [("metadata.json", metadata)]
    for part, inside in (("pkg", False), ("info", True)):
        members = [path for path in paths if (path.relative_to(root).parts[0] == "info") == inside]
        archive = _tar(root, members, epoch)
        parts.append((f"{part}-{stem}.tar.zst", zstandard.ZstdCompressor(level=LEVEL).compress(archive)))
    date = datetime.fromtimestamp(epoch, UTC).timetuple()[:6]
    partial = package.with_name(f"{package.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as outer:
        for name, content in parts:
            outer.writestr(zipfile.ZipInfo(name, date), content)
    partial.chmod(0o644)
    partial.replace(package)


def _tar(root: Path, paths: list[Path], epoch: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in paths:
            add_entry(archive, path, path.relative_to(root).as_posix(), epoch)
    return buffer.getvalue()


def add_entry(archive: tarfile.TarFile, path: Path, name: str, epoch: int) -> None:
    """Adds a file, link or folder to an archive, owned by root, with the given time and an ordinary mode."""
    entry = archive.gettarinfo(path, name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = epoch
    entry.mode = 0o777 if entry.issym() else 0o755 if entry.mode & 0o100 else 0o644
    # Links between files: each is a file of its own.
    if entry.islnk():
        entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)
