# SPDX-License-Identifier: MIT
"""An OCI image for linux/arm64 from lock files, made without a container engine.

Three layers: Debian's base (ci/debian.lock), the conda environment (env/lock), and our own
packages. The folder is an OCI layout (image-spec 1.0); the archive beside it also has the
manifest.json that `docker load` reads.
"""

import gzip
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyclonedx.model.component import ComponentType

from ..base import archives, environment
from ..base.files import replacing
from ..base.hashes import sha256
from ..base.messages import log
from ..base.pins import EPOCH, MICROARCHITECTURES
from ..build import dist, recipes, sbom
from ..inputs import debian, locked_environments
from ..inputs.bootstrap import BOOTSTRAP

NAME = "acl-qlinear"
# Where the environment is in the image.
PREFIX = "opt/acl-qlinear"
USER = "user:x:1000:1000::/home/user:/bin/bash"
SBOM = "usr/share/sbom/acl-qlinear.cdx.json"
# The folders that others than root write to: owner and mode.
WRITABLE = {"tmp": (0, 0o1777), "home/user": (1000, 0o755)}
# What only people or package managers need.
LEFT_OUT = ("usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
# Higher levels take twice the time for three percent.
LEVEL = 4


def _base(root: Path) -> list[Path]:
    """Fills `root` with Debian's base; the packages that it is made of."""
    spec = BOOTSTRAP["image_root"]
    debs = debian.packages(spec["suite"], "arm64", spec["packages"])
    debian.unpack(debs, root)
    for path in LEFT_OUT:
        shutil.rmtree(root / path, ignore_errors=True)
    for folder in ("etc", "home/user", "tmp", "root", "proc", "sys", "dev", "usr/bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text(f"root:x:0:0:root:/root:/bin/bash\n{USER}\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    return debs


def _environment(root: Path, name: str, microarchitecture: str) -> tuple[list[dict[str, Any]], set[str]]:
    """Installs a locked environment and our packages into root/PREFIX; the packages, and the files of ours."""
    target = root / PREFIX
    locked = locked_environments.locked_environment(name)
    channels = [dist.CHANNEL.as_uri(), *dist.upstream_of_built_channel()]
    cpu = MICROARCHITECTURES[microarchitecture].archspec_cpu
    specs = [f"{record.name.normalized} =={record.version} {record.build}" for record in locked]
    solved = environment.resolve(channels, [f"{NAME} * *{microarchitecture}*", *specs], cpu)
    # What is locked comes from where, and with the hash that, the lock says.
    ours = [record for record in solved if record.name.normalized in recipes.SOURCES]
    environment.install_records([*locked, *ours], target, Path("/", PREFIX))
    for cache in list(target.rglob("__pycache__")):
        shutil.rmtree(cache)
    found, files = [], set()
    for file in sorted((target / "conda-meta").glob("*.json")):
        record = _without_this_machine(json.loads(file.read_text()))
        file.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        found.append(record)
        if record["name"] in recipes.SOURCES:
            files |= {f"{PREFIX}/{path}" for path in record["files"]} | {f"{PREFIX}/conda-meta/{file.name}"}
    return found, files


def _without_this_machine(record: dict[str, Any]) -> dict[str, Any]:
    """A file of conda-meta/ without paths of the machine that installed, and times."""
    for key in ("extracted_package_dir", "package_tarball_full_path", "link", "indexed_timestamp"):
        record.pop(key, None)
    if record["url"].startswith("file:"):
        channel = NAME if record["name"] in recipes.SOURCES else "bootstrap"
        record |= {"channel": channel, "url": f"{channel}/{record['subdir']}/{record['fn']}"}
    return record


class Layout:
    """An OCI layout in the making: a folder with blobs by digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, content: Any, media_type: str) -> dict[str, Any]:
        """Adds a JSON blob, and returns its descriptor."""
        partial = self.folder / "blobs/partial"
        partial.write_text(json.dumps(content, sort_keys=True))
        return self._adopt(partial, media_type)

    def add_layer(self, root: Path, paths: Iterable[str]) -> tuple[dict[str, Any], str]:
        """Adds a layer of the given paths of `root`, and the folders above them; its descriptor and diff ID."""
        wanted = {str(parent) for path in paths for parent in [Path(path), *Path(path).parents]} - {"."}
        partial, plain = self.folder / "blobs/partial", hashlib.sha256()
        with (
            partial.open("wb") as file,
            gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed,
        ):
            entries = ((root / path, path) for path in sorted(wanted))
            archives.write_tar(_Hashed(packed, plain), entries, EPOCH, WRITABLE)
        return self._adopt(partial, LAYER), f"sha256:{plain.hexdigest()}"

    def _adopt(self, partial: Path, media_type: str) -> dict[str, Any]:
        digest, size = sha256(partial), partial.stat().st_size
        partial.rename(self.folder / "blobs/sha256" / digest)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


class _Hashed:
    """A file that also feeds a hash."""

    def __init__(self, file: Any, digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._file.write(data)


def labels(version: str, acl: str, torch: str, microarchitecture: str) -> dict[str, str]:
    """The image's labels, by the OCI image spec's annotations."""
    texts = {
        "title": NAME,
        "description": f"int8 linear layers for PyTorch {torch} on AArch64, on Arm Compute Library {acl}",
        "version": version,
        "created": datetime.fromtimestamp(EPOCH, UTC).isoformat().replace("+00:00", "Z"),
        "ref.name": f"{version}-{microarchitecture}",
    }
    return {f"org.opencontainers.image.{key}": text for key, text in texts.items()}


def make_image(output: Path, environment: str, microarchitecture: str) -> dict[str, Any]:
    """Writes the layout `output` and the archive `output`.tar, which appear when they are whole.

    Returns the manifest's descriptor, "layers", their digests, and "unpacked", the size of all files in bytes.
    """
    with tempfile.TemporaryDirectory(dir=output.parent) as name:
        work = Path(name)
        roots = [work / "base", work / "environment"]
        log("Debian's base")
        debs = _base(roots[0])
        log(f"{environment}, and our packages for {microarchitecture}")
        records, ours = _environment(roots[1], environment, microarchitecture)
        versions = {record["name"]: str(record["version"]) for record in records}
        version = versions[NAME]
        (roots[1] / SBOM).parent.mkdir(parents=True)
        (roots[1] / SBOM).write_text(sbom.collection_sbom(NAME, version, EPOCH, records, ComponentType.CONTAINER, debs))
        layout = Layout(work / "layout")
        everything = [_paths(root) for root in roots]
        layers = []
        steps = [
            ("base", roots[0], everything[0]),
            ("environment", roots[1], everything[1] - ours - {SBOM}),
            ("our packages", roots[1], (everything[1] & ours) | {SBOM}),
        ]
        for label, root, paths in steps:
            log(f"layer: {label}")
            layers.append(layout.add_layer(root, paths))
        marks = labels(version, versions["arm-compute-library"], versions["pytorch"], microarchitecture)
        config = layout.add(
            {
                "architecture": "arm64",
                "os": "linux",
                "created": marks["org.opencontainers.image.created"],
                "config": {
                    "User": "1000:1000",
                    "WorkingDir": "/home/user",
                    "Cmd": ["python"],
                    "Labels": marks,
                    "Env": [f"PATH=/{PREFIX}/bin:/usr/bin:/bin", f"CONDA_PREFIX=/{PREFIX}", "LC_ALL=C.UTF-8"],
                },
                "rootfs": {"type": "layers", "diff_ids": [diff for _, diff in layers]},
                "history": [
                    {"created": marks["org.opencontainers.image.created"], "created_by": f"ci/image.sh: {label}"}
                    for label, _, _ in steps
                ],
            },
            CONFIG,
        )
        descriptors = [descriptor for descriptor, _ in layers]
        manifest = layout.add(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors, "annotations": marks},
            MANIFEST,
        )
        tag = {"org.opencontainers.image.ref.name": marks["org.opencontainers.image.ref.name"]}
        entry = {**manifest, "platform": {"architecture": "arm64", "os": "linux"}, "annotations": tag}
        index = json.dumps({"schemaVersion": 2, "manifests": [entry]}, sort_keys=True)
        (layout.folder / "index.json").write_text(index)
        log("archive")
        _write_archive(layout.folder, work / "archive.tar", config, descriptors, f"{NAME}:{version}")
        files = (path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        unpacked = sum(path.stat().st_size for path in files)
        with replacing(output) as partial:
            layout.folder.rename(partial)
        (work / "archive.tar").rename(output.with_name(f"{output.name}.tar"))
    return {**manifest, "unpacked": unpacked, "layers": [descriptor["digest"] for descriptor in descriptors]}


def _paths(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def _write_archive(layout: Path, target: Path, config: dict[str, Any], layers: list[dict[str, Any]], tag: str) -> None:
    """Writes the layout as one file, with docker's list of what is in it."""
    blobs = [f"blobs/sha256/{part['digest'].removeprefix('sha256:')}" for part in (config, *layers)]
    docker = layout / "manifest.json"
    docker.write_text(json.dumps([{"Config": blobs[0], "RepoTags": [tag], "Layers": blobs[1:]}]))
    entries = ((path, path.relative_to(layout).as_posix()) for path in sorted(layout.rglob("*")))
    with target.open("wb") as file:
        archives.write_tar(file, entries, EPOCH)
    docker.unlink()
