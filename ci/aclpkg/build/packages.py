# SPDX-License-Identifier: MIT
"""Builds the recipes into conda packages, with rattler-build."""

import ctypes
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path

from ..base import archives
from ..base.cache import cached_dir, find_cached
from ..base.files import beside, holding_lock, replacing
from ..base.hashes import tree_hash
from ..base.messages import CiError, log
from ..base.paths import CACHE, ROOT
from ..base.pins import EPOCH, MICROARCHITECTURES
from ..base.processes import changed_environment
from ..inputs.bootstrap import not_locked
from . import normalize, provenance, recipes, sbom, symbol_floors
from .normalize import BuiltPackage

# What decides, besides rattler-build, what is in a package and beside it.
CONTENT = (archives, normalize, symbol_floors, sbom, provenance)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def build_packages(name: str, channel: Path, upstream: list[str], **wanted: str) -> None:
    """Builds a recipe's packages and copies them into `channel`, a folder that gets them whole.

    upstream: the channels with everything that is not ours. wanted: the rows of the
    variants. Packages are cached by all that goes into them.
    """
    inputs = {
        "recipe": tree_hash(recipes.RECIPES / name, recipes.RECIPES / "variants.yaml", *recipes.SOURCES[name]),
        "channels": upstream,
        "ours": _ours(name, channel),
        "content": tree_hash(*(Path(str(module.__file__)) for module in CONTENT)),
    }
    sources = [(source, str(source.relative_to(ROOT))) for source in recipes.SOURCES[name]]
    jobs = [
        Job(Recipe(recipes.RECIPES / name, row, sources), build_string, channel, upstream, inputs)
        for row, build_string in recipes.packages(name, **wanted)
    ]
    make_missing(jobs)
    for job in jobs:
        for file in sorted(job.home().glob("*/*")):
            shutil.copyfile(file, channel / file.parent.name / file.name)


@dataclass(frozen=True)
class Recipe:
    """What a package is built from.

    folder: the recipe's. row: of the variants. sources: what of the checkout the recipe uses, and its paths there.
    """

    folder: Path
    row: dict[str, str]
    sources: list[tuple[Path, str]]

    @property
    def place(self) -> str:
        """The name of the folder that it is built in: one for each microarchitecture, so that ccache finds its own."""
        return "-".join(filter(None, [self.folder.name, self.row.get("microarchitecture")]))

    def debian_source(self) -> Path | None:
        """ACL's source, downloaded, where the recipe takes it and Debian has it."""
        address = self.row.get("acl_source")
        return recipes.debian_source(address, self.row["acl_sha256"]) if address else None


@dataclass(frozen=True)
class Job:
    """A package that `build_packages` wants, and all that decides what is in it."""

    recipe: Recipe
    build_string: str
    channel: Path
    upstream: list[str]
    inputs: Mapping[str, object]

    def home(self) -> Path:
        """The cached folder with the package, built where it is not there."""
        return cached_dir(*self._name_and_inputs, self._make)

    def is_made(self) -> bool:
        return find_cached(*self._name_and_inputs) is not None

    @property
    def _name_and_inputs(self) -> tuple[str, list[object]]:
        return f"packages/{self.recipe.folder.name}", [self.inputs, self.build_string]

    def _make(self, target: Path) -> None:
        log(f"building {self.recipe.folder.name} {self.build_string}")
        started = datetime.now(UTC)
        stand_ins = not_locked(self.upstream)
        with built_package(self.recipe, self.channel, self.upstream, CACHE / "build" / self.recipe.place) as package:
            texts = {
                sbom.SUFFIX: sbom.package_sbom(package, stand_ins),
                provenance.SUFFIX: provenance.statement(package, started, self.recipe.sources, stand_ins),
            }
            final = move_package(package.path, target)
        for suffix, text in texts.items():
            beside(final, suffix).write_text(text)


def make_missing(jobs: list[Job]) -> None:
    """Builds the packages that are not cached, those of different microarchitectures at the same time."""
    by_place: dict[str, list[Job]] = {}
    for job in jobs:
        if not job.is_made():
            by_place.setdefault(job.recipe.place, []).append(job)
    if len(by_place) < 2:
        return
    # Else the processes wait for one another, and say so.
    for first, *_ in by_place.values():
        first.recipe.debian_source()
    # Processes, since each needs environment variables of its own. Not forked, since rattler-build has threads.
    with ProcessPoolExecutor(len(by_place), get_context("spawn"), _end_with_parent) as pool:
        list(pool.map(_make_all, by_place.values()))


def _make_all(jobs: list[Job]) -> None:
    for job in jobs:
        job.home()


def _end_with_parent() -> None:
    """Makes the system kill this process when the one that started it has been killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def built_package(
    recipe: Recipe,
    channel: Path,
    upstream: list[str],
    output: Path,
    ccache: Path = CACHE / "ccache",
    epoch: int = EPOCH,
) -> Iterator[BuiltPackage]:
    """Builds a package and makes it the same wherever it is built; its files are there in the body alone.

    channel: the folder with our own packages. output: the folder that rattler-build works
    in; compilers' paths are part of what ccache compares, so the same one is quicker. epoch:
    the package's time, in seconds.
    """
    name = recipe.row.get("microarchitecture")
    variables = {
        "CCACHE_DIR": str(ccache),
        # The solver for the target must not ask this machine.
        "CONDA_OVERRIDE_ARCHSPEC": MICROARCHITECTURES[name].archspec_cpu if name else "",
        "CONDA_OVERRIDE_GLIBC": "2.36",
    }
    places = {str(output): "/build", channel.as_uri(): "acl-qlinear"}
    places |= {address.rstrip("/"): "bootstrap" for address in upstream if address.startswith("file:")}
    if source := recipe.debian_source():
        variables["ACL_SOURCE_URL"] = source.as_uri()
        places[source.as_uri().replace("+", "%2B")] = places[source.as_uri()] = recipe.row["acl_source"]
    with holding_lock(output.with_suffix(".lock")):
        shutil.rmtree(output, ignore_errors=True)
        try:
            with changed_environment(**variables):
                package = _run_rattler_build(recipe, [channel.as_uri(), *upstream], output)
            yield normalize.normalize(package, output / "tree", epoch, places, recipe.sources)
        finally:
            _remove_output(output)


def move_package(package: Path, target: Path) -> Path:
    """Moves a package into `target`/SUBDIR/, where it appears when it is whole; its new path."""
    final = target / package.parent.name / package.name
    final.parent.mkdir(exist_ok=True)
    # Another file system, maybe.
    with replacing(final) as partial:
        shutil.move(package, partial)
    return final


def _remove_output(output: Path) -> None:
    """Removes the folder of a build; where that has failed, rattler-build's threads may still be writing to it."""
    for _ in range(50):
        shutil.rmtree(output, ignore_errors=True)
        time.sleep(0.1)
        if not output.exists():
            return


def _run_rattler_build(recipe: Recipe, channels: list[str], output: Path) -> Path:
    output.mkdir(parents=True)
    (rendered,) = recipes.render(recipe.folder, {key: [value] for key, value in recipe.row.items()})
    try:
        # Without tests: those of packages for AArch64 are run where they can be, by ci/test.sh.
        # Packed again by `normalize`.
        rendered.run_build(output_dir=output, channels=channels, no_build_id=True, package_format="conda:1")
    except Exception as error:  # rattler-build's errors have no type in common
        logs = [log.read_text(errors="replace") for log in output.glob("bld/*/work/conda_build.log")]
        tail = "\n".join("".join(logs).splitlines()[-25:])
        # rattler-build does not always say that a disk is full.
        free = shutil.disk_usage(output).free >> 20
        raise CiError(
            f"{recipe.folder.name} cannot be built: {error} ({free} MiB are free in {output})\n{tail}"
        ) from error
    packages = list(output.glob("*/*.conda"))
    if len(packages) != 1:
        raise CiError(f"{recipe.folder} makes {len(packages)} packages of {recipe.row}, expected 1")
    return packages[0]


def _ours(name: str, channel: Path) -> str:
    """What of our own packages this one is built with."""
    return tree_hash(*sorted(channel.glob("*/arm-compute-library-*.conda"))) if name == "acl-qlinear" else ""
