# SPDX-License-Identifier: MIT
"""Writes env/lock: the packages of every environment."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rattler import LockChannel, LockFile, LockPlatform, PackageRecord, RepoDataRecord

from ..base import environment
from ..base.pins import PYTHON, TORCH, VARIANTS
from ..build import dist, normalize, recipes
from ..inputs import locked_environments
from ..inputs.bootstrap import BUILD_ARCH, SUBDIR

# Stands for the bootstrap channel, wherever it is, until the files are written.
PLACEHOLDER = "file:///bootstrap.invalid"
# What a user of acl-qlinear is expected to want besides.
USED = ["acl-qlinear", "numpy", f"python {PYTHON}.*"]


def _built_in() -> Iterator[tuple[str, str, list[RepoDataRecord]]]:
    """Name, platform and packages of each environment that the packages in dist/channel were built in."""
    for package in sorted(dist.CHANNEL.glob("*/*.conda")):
        with tempfile.TemporaryDirectory() as work:
            recipe = normalize.read_package(package, Path(work)).recipe
        name, variant = recipe["recipe"]["package"]["name"], recipe["build_configuration"]["variant"]
        for part, platform in (("build", SUBDIR[BUILD_ARCH]), ("host", environment.PLATFORM)):
            found = (recipe["finalized_dependencies"].get(part) or {}).get("resolved", [])
            # Compilers do not depend on PyTorch.
            suffix = f"-pytorch{variant['pytorch']}" if part == "host" and "pytorch" in variant else ""
            others = [entry for entry in found if entry["name"] not in recipes.SOURCES]
            if others:
                yield f"{part}-{name}{suffix}", platform, [_record(entry) for entry in others]


def _record(entry: dict[str, Any]) -> RepoDataRecord:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as index:
        json.dump(entry, index)
        index.flush()
        record = PackageRecord.from_index_json(Path(index.name), entry.get("size"), entry["sha256"])
    # A package's recipe names the bootstrap channel without this machine's path to it.
    url = re.sub("^bootstrap/", f"{PLACEHOLDER}/", entry["url"])
    return RepoDataRecord(record, url.rsplit("/", 1)[1], url, _channel(url))


def _channel(url: str) -> str:
    """The channel of a package's address."""
    return url.rsplit("/", 2)[0]


def _used_in() -> Iterator[tuple[str, str, list[RepoDataRecord]]]:
    upstream = dist.upstream_of_built_channel()
    for torch in VARIANTS["pytorch"]:
        found = environment.resolve([dist.CHANNEL.as_uri(), *upstream], [*USED, f"pytorch {torch}.*"], None)
        records = [record for record in found if record.name.normalized not in recipes.SOURCES]
        for record in records:
            for address in upstream:
                if address.startswith("file:"):
                    record.url = record.url.replace(address.rstrip("/"), PLACEHOLDER)
        yield f"use-pytorch{torch}", environment.PLATFORM, records


def environments() -> dict[str, tuple[str, list[RepoDataRecord]]]:
    """Platform and packages of every environment, without ours, by the environment's name."""
    found: dict[str, tuple[str, dict[str, RepoDataRecord]]] = {}
    for name, platform, records in [*_built_in(), *_used_in()]:
        found.setdefault(name, (platform, {}))[1].update({str(record.file_name): record for record in records})
    return {name: (platform, [named[file] for file in sorted(named)]) for name, (platform, named) in found.items()}


def write_environments(target: Path) -> None:
    """Writes env/lock/'s files for what is in dist/channel into the folder `target`.

    Where everything came from the bootstrap channel, packages are named relative to
    the checkout, where ci/build.sh puts a link to it.
    """
    target.mkdir(parents=True, exist_ok=True)
    found = environments()
    platforms = {platform: LockPlatform(platform) for platform, _ in found.values()}
    lock = LockFile(list(platforms.values()))
    channels: dict[str, None] = {}
    for name, (platform, records) in found.items():
        pixi_name = name.replace(".", "-")
        lines = [
            f"# {name}: what acl-qlinear's packages are {'used' if name.startswith('use') else 'built'} with, without "
            "our own; written by ci/lock.sh",
            f"# From the checkout's folder: conda create --name {name} --file env/lock/{name}.txt",
            f"# platform: {platform}",
            "@EXPLICIT",
        ]
        for record in records:
            lock.add_conda_package(pixi_name, platforms[platform], record)
            channels.setdefault(_channel(record.url))
            assert record.sha256
            lines.append(f"{record.url}#sha256:{record.sha256.hex()}".replace(PLACEHOLDER, locked_environments.HERE))
        (target / f"{name}.txt").write_text("\n".join(lines) + "\n")
        lock.set_channels(pixi_name, [LockChannel(channel) for channel in channels])
    lock.to_path(target / "pixi.lock")
    # pixi's paths are relative to its files.
    (target / "pixi.toml").write_text(_pixi_manifest(found, list(channels)))
    for file in (target / "pixi.lock", target / "pixi.toml"):
        # What tells of this machine and of when it made the channel; rattler takes no path for a package's channel.
        text = re.sub(r"(?m)^  (channel: file:.*|indexed_timestamp: .*)\n", "", file.read_text())
        # rattler writes a path for a package's file: address.
        for place in (PLACEHOLDER, urlsplit(PLACEHOLDER).path):
            text = text.replace(place, f"../../{locked_environments.HERE}")
        file.write_text(text)


def _pixi_manifest(found: dict[str, tuple[str, list[RepoDataRecord]]], channels: list[str]) -> str:
    lines = [
        "# Written by ci/lock.sh. From the checkout's folder:",
        "#   pixi install --frozen --manifest-path env/lock/pixi.toml --environment use-pytorch"
        + TORCH.replace(".", "-"),
        "[workspace]",
        'name = "acl-qlinear"',
        f"channels = {json.dumps(channels)}",
        f"platforms = {json.dumps(sorted({platform for platform, _ in found.values()}))}",
        "",
        "[environments]",
    ]
    names = [name.replace(".", "-") for name in found]
    lines += [f'{name} = {{ features = ["{name}"], no-default-feature = true }}' for name in names]
    for name, (platform, records) in zip(names, found.values(), strict=True):
        lines += ["", f"[feature.{name}]", f'platforms = ["{platform}"]', f"[feature.{name}.dependencies]"]
        lines += [f'{record.name.normalized} = "=={record.version}"' for record in records]
    return "\n".join(lines) + "\n"
