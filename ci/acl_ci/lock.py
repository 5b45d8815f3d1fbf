"""ci/lock.sh: pins, by hash, what is taken from Debian, and the packages of every conda environment.

ci/debian.lock: for both kinds of build machines. env/lock/: the environments that
the packages in dist/channel were built in, and those that they are used in, for
conda and mamba (*.txt) and for pixi (pixi.toml, pixi.lock). Our own packages are in none.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from rattler import LockChannel, LockFile, LockPlatform, PackageRecord, RepoDataRecord

from . import build, debian, packages, prefix, seal
from .bootstrap import BOOTSTRAP, BUILD_ARCH, DEB_ARCH, SUBDIR
from .cache import DIST, ROOT, CiError, command
from .pins import VARIANTS

ENVIRONMENTS = ROOT / "env/lock"
# Stands for the bootstrap channel, wherever it is, until the files are written.
PLACEHOLDER = "file:///bootstrap.invalid"
HERE = "dist/bootstrap"
# What a user of acl-qlinear is expected to want besides.
USED = ["acl-qlinear", "numpy", "python 3.11.*"]


def locked_files() -> dict[str, str]:
    """The sha256 of what Debian has today of what is used, by SUITE/ARCHITECTURE/FILE."""
    found: dict[str, str] = {}
    roots = [{**BOOTSTRAP[name], "kind": "target"} for name in ("emulated_root", "image_root", "module_systems")]
    for spec in [*BOOTSTRAP["debian"], *roots]:
        suite, names = spec["suite"], spec["packages"]
        for machine, arch in DEB_ARCH.items():
            if spec["kind"] in ("tool", "both") or machine == "aarch64":
                remotes = debian.offered(suite, arch, names[machine] if isinstance(names, dict) else names)
                found |= {f"{suite}/{arch}/{remote.file}": remote.sha256 for remote in remotes}
    suite = BOOTSTRAP["sources"]["suite"]
    remote = debian.offered_source(suite, "qemu")
    return {**found, f"{suite}/source/{remote.file}": remote.sha256}


def _built_in() -> Iterator[tuple[str, str, list[RepoDataRecord]]]:
    """Name, platform and packages of each environment that the packages in dist/channel were built in."""
    for package in sorted(build.CHANNEL.glob("*/*.conda")):
        with tempfile.TemporaryDirectory() as work:
            seal.unpack(package, Path(work))
            recipe = yaml.safe_load((Path(work) / "info/recipe/rendered_recipe.yaml").read_text())
        name, variant = recipe["recipe"]["package"]["name"], recipe["build_configuration"]["variant"]
        for part, platform in (("build", SUBDIR[BUILD_ARCH]), ("host", prefix.PLATFORM)):
            found = (recipe["finalized_dependencies"].get(part) or {}).get("resolved", [])
            # Compilers do not depend on PyTorch.
            suffix = f"-pytorch{variant['pytorch']}" if part == "host" and "pytorch" in variant else ""
            others = [entry for entry in found if entry["name"] not in packages.SOURCES]
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
    upstream = build.upstream_of_built_channel()
    for torch in VARIANTS["pytorch"]:
        found = prefix.resolve([build.CHANNEL.as_uri(), *upstream], [*USED, f"pytorch {torch}.*"], None)
        records = [record for record in found if record.name.normalized not in packages.SOURCES]
        for record in records:
            for address in upstream:
                if address.startswith("file:"):
                    record.url = record.url.replace(address.rstrip("/"), PLACEHOLDER)
        yield f"use-pytorch{torch}", prefix.PLATFORM, records


def locked(name: str) -> list[RepoDataRecord]:
    """The packages of an environment in env/lock, with addresses that lead to them from here.

    Raises CiError for a name that is not there.
    """
    file = ENVIRONMENTS / "pixi.lock"
    with tempfile.TemporaryDirectory() as work:
        # rattler's records take no relative paths.
        absolute = Path(work) / file.name
        absolute.write_text(file.read_text().replace(f"../../{HERE}", str((DIST / "bootstrap").resolve())))
        found = dict(LockFile.from_path(absolute).environments())
    pixi_name = name.replace(".", "-")
    if pixi_name not in found:
        raise CiError(f"{name} is not in {file}, which has: {', '.join(sorted(found))}")
    (platform,) = found[pixi_name].platforms()
    return found[pixi_name].conda_repodata_records_for_platform(platform) or []


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
            lines.append(f"{record.url}#sha256:{record.sha256.hex()}".replace(PLACEHOLDER, HERE))
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
            text = text.replace(place, f"../../{HERE}")
        file.write_text(text)


def _pixi_manifest(found: dict[str, tuple[str, list[RepoDataRecord]]], channels: list[str]) -> str:
    lines = [
        "# Written by ci/lock.sh. From the checkout's folder:",
        "#   pixi install --frozen --manifest-path env/lock/pixi.toml --environment use-pytorch"
        + VARIANTS["pytorch"][-1].replace(".", "-"),
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


def main() -> None:
    argparse.ArgumentParser(prog="ci/lock.sh", description=__doc__).parse_args()
    if shutil.which("apt-get"):
        lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(locked_files().items())]
        partial = debian.LOCK.with_name(f"{debian.LOCK.name}.partial")
        header = "# sha256 of what is taken from Debian, by SUITE/ARCHITECTURE/FILE; written by ci/lock.sh.\n"
        partial.write_text(header + "".join(lines))
        partial.replace(debian.LOCK)
        print(f"{debian.LOCK}: {len(lines)} files")
    if not build.CHANNEL.is_dir():
        raise CiError(f"{build.CHANNEL} is not there, whose packages say what they were built with: run ci/build.sh")
    partial = ENVIRONMENTS.with_name(f"{ENVIRONMENTS.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    write_environments(partial)
    shutil.rmtree(ENVIRONMENTS, ignore_errors=True)
    partial.rename(ENVIRONMENTS)
    print(f"{ENVIRONMENTS}: {', '.join(sorted(file.stem for file in ENVIRONMENTS.glob('*.txt')))}")


if __name__ == "__main__":
    command(main)
