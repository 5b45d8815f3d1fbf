# SPDX-License-Identifier: MIT
"""The pip wheel: every build of a channel in one file, of which `import acl_qlinear` takes the one that fits.

acl_qlinear/                            as in a conda package, and a _build.py that lists the builds
acl_qlinear/builds/MICROARCHITECTURE/   a library for each PyTorch, and Arm Compute Library
"""

import json
import os
import runpy
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from auditwheel.architecture import Architecture
from auditwheel.libc import Libc
from auditwheel.wheel_abi import analyze_wheel_abi
from cyclonedx.model.component import ComponentType

from ..base import archives
from ..base.environment import PLATFORM
from ..base.files import replacing
from ..base.messages import CiError
from ..base.pins import EPOCH, MICROARCHITECTURES
from ..base.processes import run
from ..build import sbom

POLICY = "manylinux_2_28_aarch64"
# PyTorch has loaded them before.
OF_TORCH = frozenset({"libtorch_cpu.so", "libtorch.so", "libc10.so"})
# What differs between packages for different PyTorchs and CPUs.
OWN_FILES = {"_C.so", "_build.py"}


@dataclass(frozen=True)
class Unpacked:
    """A package of the channel; record: what the channel's index says of it."""

    folder: Path
    record: dict[str, Any]

    @property
    def python(self) -> Path:
        """The folder of the Python package."""
        return self.folder / "site-packages/acl_qlinear"

    @cached_property
    def held(self) -> dict[str, Any]:
        """The contents of its _build.py."""
        return runpy.run_path(str(self.python / "_build.py"))

    @property
    def microarchitecture(self) -> str:
        """The one that it was built for."""
        return next(name for name in MICROARCHITECTURES if f"_{name}_" in f"_{self.record['build']}")


def make_wheel(channel: Path, target: Path) -> Path:
    """Makes the wheel of all packages in `channel`, and returns where it is: in the folder `target`.

    Raises CiError where packages differ in what they should share, or where a library needs more of a
    system than the wheel's tag says.
    """
    records = json.loads((channel / PLATFORM / "repodata.json").read_text())["packages.conda"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        tree, packed = work / "wheel", work / "packed"
        packed.mkdir()
        packages: dict[str, list[Unpacked]] = {"acl-qlinear": [], "arm-compute-library": []}
        # Those that are preferred come last.
        for name, record in sorted(records.items(), key=lambda item: (item[1]["build_number"], item[0])):
            archives.unpack_package(channel / PLATFORM / name, work / name)
            packages[record["name"]].append(Unpacked(work / name, record))
        ours, acl = packages.values()
        _copy_shared_files(ours, tree)
        builds = [_copy_library(package, tree) for package in ours]
        for package in acl:
            _copy_acl(package, tree)
        _write_build(tree / "acl_qlinear/_build.py", ours[0].held, builds)
        _write_metadata(tree, ours, acl)
        epoch = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)}
        run([sys.executable, "-m", "wheel", "pack", "--dest-dir", packed, tree], env=epoch)
        (wheel,) = packed.iterdir()
        _check_policy(wheel)
        target.mkdir(parents=True, exist_ok=True)
        with replacing(target / wheel.name) as partial:
            shutil.copy(wheel, partial)
    return target / wheel.name


def _copy_shared_files(packages: list[Unpacked], tree: Path) -> None:
    """Copies what is the same in all packages, and the command."""
    first = packages[0]
    for package in packages[1:]:
        if changed := {path for path, _ in _shared_files(first).items() ^ _shared_files(package).items()}:
            names = ", ".join(sorted(changed))
            raise CiError(f"{package.folder.name} differs from {first.folder.name} in {names}: build both again")
    shutil.copytree(first.python, tree / "acl_qlinear", ignore=shutil.ignore_patterns(*OWN_FILES, "__pycache__"))
    shutil.copytree(first.folder / "python-scripts", tree / _folder(first, ".data") / "scripts")


def _shared_files(package: Unpacked) -> dict[str, bytes]:
    files = (path for path in package.python.rglob("*") if path.is_file() and path.name not in OWN_FILES)
    return {str(path.relative_to(package.python)): path.read_bytes() for path in files}


def _copy_library(package: Unpacked, tree: Path) -> tuple[str, str, bool, str]:
    """Copies the library of a package, which finds ACL beside it; what _build.py says of it."""
    library = f"builds/{package.microarchitecture}/{package.record['build'].split('_')[0]}.so"
    file = tree / "acl_qlinear" / library
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(package.python / "_C.so", file)
    run(["patchelf", "--set-rpath", "$ORIGIN", file])
    ((microarchitecture, torch_minor, stable_abi, _),) = package.held["BUILDS"]
    return microarchitecture, torch_minor, stable_abi, library


def _copy_acl(package: Unpacked, tree: Path) -> None:
    """Copies Arm Compute Library, under its SONAME alone since a wheel has no links."""
    (library,) = (file for file in (package.folder / "lib").glob("libarm_compute.so*") if not file.is_symlink())
    soname = run(["patchelf", "--print-soname", library]).strip()
    shutil.copy(library, tree / "acl_qlinear/builds" / package.microarchitecture / soname)


def _write_build(file: Path, held: dict[str, Any], builds: list[tuple[str, str, bool, str]]) -> None:
    rows = "".join(f"    {build!r},\n" for build in builds)
    file.write_text(
        '"""What this copy holds; written by ci/build.sh --wheel."""\n\n'
        f"VERSION = {held['VERSION']!r}\n"
        f"ACL_VERSION = {held['ACL_VERSION']!r}\n"
        "IS_WHEEL = True\n"
        f"# The fields of acl_qlinear._builds.Build.\nBUILDS = [\n{rows}]\n"
    )


def _folder(package: Unpacked, suffix: str) -> str:
    """A folder that a wheel has beside the package, as its specification names it."""
    return f"acl_qlinear-{package.held['VERSION']}{suffix}"


def _write_metadata(tree: Path, ours: list[Unpacked], acl: list[Unpacked]) -> None:
    """Writes what pip reads, the licences, and the SBOM, which has the conda packages that this was made of."""
    first, info = ours[0], tree / _folder(ours[0], ".dist-info")
    theirs = first.folder / "site-packages" / info.name
    shutil.copytree(theirs / "licenses", info / "licenses")
    shutil.copytree(acl[0].folder / "info/licenses/LICENSES", info / "licenses/arm-compute-library")
    licences = [
        f"License-File: {file.relative_to(info / 'licenses')}" for file in sorted(info.rglob("*")) if file.is_file()
    ]
    metadata = [line for line in (theirs / "METADATA").read_text().splitlines() if not line.startswith("License-File")]
    oldest_torch = first.held["BUILDS"][0][1]
    others = [depend.replace(" ", "") for depend in first.record["depends"] if depend.split()[0] in ("numpy", "rich")]
    needs = [f"Requires-Dist: {need}" for need in (f"torch>={oldest_torch}", *others)]
    (info / "METADATA").write_text("\n".join([*filter(None, metadata), *licences, *needs]) + "\n")
    (info / "WHEEL").write_text(
        f"Wheel-Version: 1.0\nGenerator: acl-qlinear's ci/build.sh\nRoot-Is-Purelib: false\nTag: py3-none-{POLICY}\n"
    )
    (info / "sboms").mkdir()
    records = [package.record for package in (*ours, *acl)]
    text = sbom.collection_sbom("acl-qlinear", first.held["VERSION"], EPOCH, records, ComponentType.LIBRARY)
    (info / "sboms/acl-qlinear.cdx.json").write_text(text)


def _check_policy(wheel: Path) -> None:
    """Raises CiError where auditwheel finds more in the wheel than its tag allows."""
    found = analyze_wheel_abi(
        Libc.GLIBC, Architecture.aarch64, wheel, OF_TORCH, disable_isa_ext_check=False, allow_graft=False
    )
    policy = found.policies.get_policy_by_name(POLICY)
    if found.overall_policy < policy:
        needs = {library: sorted(versions) for library, versions in found.versioned_symbols.items()}
        raise CiError(f"{wheel.name} is {found.overall_policy.name}, expected {POLICY}; it needs {needs}")
