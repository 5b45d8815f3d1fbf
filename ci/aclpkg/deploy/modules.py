# SPDX-License-Identifier: MIT
"""acl-qlinear and ACL as environment modules, for Lmod and Environment Modules 5.

    DIR/software/MICROARCHITECTURE/NAME/VERSION    a conda prefix
    DIR/.modulefiles/TIME/{lmod,tcl}/NAME/         modulefiles, and .version, which says the default
    DIR/modulefiles -> .modulefiles/TIME

Prefixes appear when they are whole. Then one rename, of DIR/modulefiles, shows all
new modules, and the new defaults, to users at once.
"""

import runpy
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rattler import Version
from rich import box
from rich.table import Table

from ..base import environment, files
from ..base.files import holding_lock
from ..base.messages import CiError, log
from ..base.paths import ROOT
from ..base.pins import MICROARCHITECTURES, TORCH
from ..build import bytecode

TEMPLATES = ROOT / "env/modules"
MODULES = ("acl-qlinear", "arm-compute-library")
GENERATIONS = ".modulefiles"
# What else is in acl-qlinear's prefix: the PyTorch that is measured, and matplotlib for the benchmark's pictures.
EXTRA = (f"pytorch {TORCH}.*", "numpy", "matplotlib-base")
KINDS = {"lmod": ".lua", "tcl": ""}


def microarchitectures() -> list[str]:
    """Those that there are builds for, from the most to the least specific."""
    return sorted(MICROARCHITECTURES, key=lambda name: -MICROARCHITECTURES[name].priority)


def _required_features() -> dict[str, list[str]]:
    """What the extension asks of the CPU, by microarchitecture, in /proc/cpuinfo's names."""
    required = runpy.run_path(str(ROOT / "src/acl_qlinear/_cpu.py"))["REQUIRED_FEATURES"]
    return {name: list(required[MICROARCHITECTURES[name].variant]) for name in microarchitectures()}


@contextmanager
def opened(channels: list[str], check: Callable[[Path, str], None]) -> Iterator[list[str]]:
    """Channels, with each bundle of ci/bundle.sh among them unpacked while it is used.

    check: called before with each channel that is a folder, and what the user calls it.
    """
    with tempfile.TemporaryDirectory() as work:
        found = []
        for number, channel in enumerate(channels):
            if channel.endswith(".tar"):
                if not Path(channel).is_file():
                    raise CiError(f"--channel is {channel}, expected a bundle of ci/bundle.sh, or a channel")
                with tarfile.open(channel) as archive:
                    archive.extraction_filter = getattr(tarfile, "data_filter", None)
                    archive.extractall(Path(work) / str(number))
                folder = next((Path(work) / str(number)).iterdir())
            elif Path(channel).is_dir():
                folder = Path(channel).resolve()
            else:
                found.append(channel)
                continue
            check(folder, channel)
            found.append(folder.as_uri())
        yield found


def deploy(root: Path, channels: list[str], version: str | None) -> dict[str, str]:
    """Installs both modules for every microarchitecture below `root`; their versions, which become the defaults.

    version: acl-qlinear's, or None for the newest. Raises CiError, and leaves users' view
    as it was, when a channel has no such version or the disk is full.
    """
    ours = f"acl-qlinear =={version}" if version else "acl-qlinear"
    deployed = {}
    with holding_lock(root / ".lock"):
        for microarchitecture in microarchitectures():
            cpu = MICROARCHITECTURES[microarchitecture].archspec_cpu
            try:
                stack = environment.resolve(channels, [ours, *EXTRA], cpu)
            except Exception as error:  # rattler's errors have no type in common
                raise CiError(f"{ours} cannot be installed for {microarchitecture} from {channels}: {error}") from error
            records = {record.name.normalized: record for record in stack}
            acl = records["arm-compute-library"]
            deployed = {name: str(records[name].version) for name in MODULES}
            specs = {
                "acl-qlinear": [f"acl-qlinear =={deployed['acl-qlinear']}", *EXTRA],
                "arm-compute-library": [f"arm-compute-library =={acl.version} {acl.build}"],
            }
            for name in MODULES:
                target = root / "software" / microarchitecture / name / deployed[name]
                label = f"{name} {deployed[name]} for {microarchitecture}"
                if target.is_dir():
                    log(f"{label} is there, and stays as it is")
                else:
                    log(f"installing {label}")
                    _install(target, channels, specs[name], cpu)
        shown = {name: {*numbers, deployed[name]} for name, numbers in versions(root).items()}
        _show(root, shown, {**defaults(root), **deployed})
    return deployed


def _install(target: Path, channels: list[str], specs: list[str], cpu: str) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        environment.create(target, channels, specs, cpu)
        bytecode.compile_files(target, channels)
    except Exception as error:
        raise CiError(f"{target} cannot be installed: {error}; users see what they saw before") from error


def versions(root: Path) -> dict[str, list[str]]:
    """The versions of each module that users see, oldest first."""
    files = {name: (root / "modulefiles/tcl" / name).glob("[!.]*") for name in MODULES}
    return {name: sorted((file.name for file in found), key=Version) for name, found in files.items()}


def defaults(root: Path) -> dict[str, str]:
    """The version of each module that `module load NAME` gets."""
    found = {}
    for name in MODULES:
        file = root / "modulefiles/tcl" / name / ".version"
        if file.exists():
            found[name] = file.read_text().split('"')[1]
    return found


def _show(root: Path, shown: dict[str, set[str]], chosen: dict[str, str]) -> None:
    """Writes modulefiles for the versions `shown`, with the defaults in `chosen`, and shows them by one rename."""
    home, link = root / GENERATIONS, root / "modulefiles"
    home.mkdir(exist_ok=True)
    used = link.resolve().name if link.is_symlink() else None
    for stale in home.iterdir():
        # Whatever a killed deployment left.
        if stale.name != used:
            shutil.rmtree(stale)
    new = home / str(time.time_ns())
    for name, numbers in shown.items():
        for kind, suffix in KINDS.items():
            folder = new / kind / name
            for number in numbers:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}{suffix}").write_text(_modulefile(kind, name, number))
            if numbers:
                default = chosen.get(name) if chosen.get(name) in numbers else max(numbers, key=Version)
                (folder / ".version").write_text(f'#%Module\nset ModulesVersion "{default}"\n')
    files.replace_symlink(link, Path(GENERATIONS, new.name))
    if used:
        shutil.rmtree(home / used, ignore_errors=True)


def _modulefile(kind: str, name: str, version: str) -> str:
    features, variable = _required_features(), f"{name.upper().replace('-', '_')}_ROOT"
    if kind == "lmod":
        builds = [f'    {{ name = "{build}", features = "{" ".join(needed)}" }},' for build, needed in features.items()]
        head = [
            "-- Written by ci/deploy-module.sh of acl-qlinear.",
            f'local name, version, root_variable = "{name}", "{version}", "{variable}"',
            "local builds = {",
            *builds,
            "}",
            "",
        ]
    else:
        builds = [f"    {build} {{{' '.join(needed)}}}" for build, needed in features.items()]
        head = [
            "#%Module5.1",
            "# Written by ci/deploy-module.sh of acl-qlinear.",
            f"set name {name}",
            f"set version {version}",
            f"set rootVariable {variable}",
            "set builds {",
            *builds,
            "}",
            "",
        ]
    suffix = {"lmod": "lua", "tcl": "tcl"}[kind]
    return "\n".join([*head, *((TEMPLATES / f"{part}.{suffix}").read_text() for part in ("pick", name))])


def remove(root: Path, version: str) -> None:
    """Takes acl-qlinear `version`, and every ACL that only it needed, from users' view, and then deletes it.

    Raises CiError for a version that is not there.
    """
    with holding_lock(root / ".lock"):
        there = versions(root)["acl-qlinear"]
        if version not in there:
            raise CiError(f"acl-qlinear {version} is not in {root}, which has: {', '.join(there) or 'none'}")
        gone = [("acl-qlinear", version)]
        needed = {number: _acl_of(root, number) for number in there}
        if needed[version] not in {acl for number, acl in needed.items() if number != version}:
            gone.append(("arm-compute-library", needed[version]))
        shown = {name: {n for n in numbers if (name, n) not in gone} for name, numbers in versions(root).items()}
        _show(root, shown, defaults(root))
        for name, number in gone:
            for folder in root.glob(f"software/*/{name}/{number}"):
                # Killed in between, nothing takes it for a whole one.
                shutil.rmtree(folder.rename(folder.with_name(f".{number}.partial")))


def _acl_of(root: Path, version: str) -> str:
    """The version of ACL in the prefixes of an acl-qlinear."""
    file = next(root.glob(f"software/*/acl-qlinear/{version}/conda-meta/arm-compute-library-*.json"))
    return file.name.split("-")[3]


def table(root: Path) -> Table:
    """What is deployed."""
    result = Table(box=box.SIMPLE_HEAD, padding=0)
    for heading in ("module", "version", "default", "microarchitectures"):
        result.add_column(heading, no_wrap=True)
    chosen = defaults(root)
    for name, numbers in versions(root).items():
        for number in numbers:
            builds = [m for m in microarchitectures() if (root / "software" / m / name / number).is_dir()]
            result.add_row(name, number, "yes" if chosen.get(name) == number else "", ", ".join(builds))
    return result
