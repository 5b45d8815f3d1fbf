"""Makes a package the same wherever, whenever and by whomever it was built.

rattler-build writes down when and where it built, and on what kernel. None of that is
the package's. It leaves out sources that are files of a checkout: they are added, so that
ci/rebuild.sh needs nothing but the package.
"""

import io
import json
import shutil
import tarfile
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import yaml
import zstandard

from . import floors
from .cache import CiError

# Where a package keeps the sources that its recipe takes from the checkout.
SOURCES = "info/recipe/sources"
# Higher levels need more memory than small machines have for one percent.
LEVEL = 19


def unpack(package: Path, target: Path) -> None:
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


def seal(package: Path, epoch: int, places: dict[str, str], sources: list[tuple[Path, str]]) -> None:
    """Writes `package`, a .conda file, anew, without a trace of the machine that built it.

    epoch: the time that every entry gets, in seconds. places: what is written
    instead of this machine's paths and addresses. sources: files and folders of
    the checkout, and their paths in it. Raises CiError when a path of this
    machine is left, and when the binaries need more than the recipe promises.
    """
    with tempfile.TemporaryDirectory(dir=package.parent) as name:
        root = Path(name)
        unpack(package, root)
        for file in [root / "info/about.json", root / "info/recipe/rendered_recipe.yaml"]:
            text = file.read_text()
            for place in sorted(places, key=len, reverse=True):
                text = text.replace(f"{place}/", f"{places[place]}/").replace(place, places[place])
            file.write_text(text)
        index = json.loads((root / "info/index.json").read_text())
        index["timestamp"] = epoch * 1000
        index["depends"] = floors.lowered(index["depends"], root, package.name)
        (root / "info/index.json").write_text(json.dumps(index, indent=2))
        _seal_recipe(root / "info/recipe/rendered_recipe.yaml")
        if "prefix_placeholder" in (root / "info/paths.json").read_text():
            raise CiError(f"{package.name} has files with the prefix in them, expected none: write them relative to it")
        for source, path in sources:
            target = root / SOURCES / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        pack(root, package, epoch)


def _seal_recipe(file: Path) -> None:
    """Takes out of the rendered recipe what tells where it was built, not from what."""
    recipe = yaml.safe_load(file.read_text())
    configuration = recipe["build_configuration"]
    del configuration["directories"], configuration["timestamp"]
    for platform in ("host_platform", "build_platform"):
        del configuration[platform]["virtual_packages"]
    recipe["recipe"]["build"].get("script", {}).get("env", {}).pop("CCACHE_DIR", None)
    file.write_text(yaml.safe_dump(recipe, sort_keys=False, width=120))


def pack(root: Path, package: Path, epoch: int) -> None:
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
            add(archive, path, path.relative_to(root).as_posix(), epoch)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, path: Path, name: str, epoch: int) -> None:
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
