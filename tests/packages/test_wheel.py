# SPDX-License-Identifier: MIT
"""The pip wheel: what is in it, and that it runs beside PyPI's PyTorch, where it takes the build that fits."""

import email
import json
import re
import runpy
import shutil
import subprocess
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base import archives, environment
from aclpkg.base.hashes import sha256
from aclpkg.base.messages import CiError
from aclpkg.base.paths import CACHE
from aclpkg.base.pins import EPOCH, PYTHON, SITE_PACKAGES, TORCH, VARIANTS
from aclpkg.base.processes import run
from aclpkg.build import bytecode, dist
from aclpkg.release import wheel as wheels

from ..conftest import ACL_VERSION, BUILD_TAGS, MICROARCHITECTURES, TORCHES
from ..emulation import inside_command

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.make_wheel(dist.CHANNEL, tmp_path_factory.mktemp("wheel"))


def test_contents(wheel: Path) -> None:
    assert wheel.name == "acl_qlinear-0.2.0-py3-none-manylinux_2_28_aarch64.whl"
    assert wheel.stat().st_size < 12 * 2**20
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = email.message_from_bytes(archive.read("acl_qlinear-0.2.0.dist-info/METADATA"))
        sbom = json.loads(archive.read("acl_qlinear-0.2.0.dist-info/sboms/acl-qlinear.cdx.json"))
    libraries = {name.removeprefix("acl_qlinear/builds/") for name in names if ".so" in name}
    soname = next(Path(name).name for name in libraries if "libarm_compute" in name)
    expected = [*(f"{tag}.so" for tag in BUILD_TAGS.values()), soname]
    assert libraries == {f"{name}/{file}" for name in MICROARCHITECTURES for file in expected}
    assert "acl_qlinear-0.2.0.data/scripts/acl-qlinear" in names and not [name for name in names if "conda" in name]
    assert metadata.get_all("Requires-Dist") == [f"torch>={TORCHES[0]}", "numpy", "rich>=13"]
    licences = {f"acl_qlinear-0.2.0.dist-info/licenses/{file}" for file in metadata.get_all("License-File", [])}
    assert len(licences) > 1 and licences <= names
    parts = {(part["name"], part["purl"]) for part in sbom["components"]}
    assert len(parts) == len(MICROARCHITECTURES) * (len(TORCHES) + 1)


def test_wheel_is_reproducible(wheel: Path, tmp_path: Path) -> None:
    assert sha256(wheels.make_wheel(dist.CHANNEL, tmp_path)) == sha256(wheel)


def test_a_tag_that_promises_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "POLICY", "manylinux_2_17_aarch64")
    with pytest.raises(
        CiError, match=r"is manylinux_2_\d\d_aarch64, expected manylinux_2_17_aarch64; it needs .*3\.4\.2"
    ):
        wheels.make_wheel(dist.CHANNEL, tmp_path / "wheel")
    assert not (tmp_path / "wheel").exists()


def test_packages_that_differ_are_refused(tmp_path: Path) -> None:
    channel = tmp_path / "channel"
    shutil.copytree(dist.CHANNEL, channel)
    package = max((channel / environment.PLATFORM).glob("acl-qlinear-*.conda"))
    archives.unpack_package(package, tmp_path / "unpacked")
    with (tmp_path / "unpacked/site-packages/acl_qlinear/ops.py").open("a") as file:
        file.write("# changed\n")
    archives.pack_package(tmp_path / "unpacked", package, EPOCH)
    with pytest.raises(CiError, match=r"differs from acl-qlinear-.* in ops\.py: build both again"):
        wheels.make_wheel(channel, tmp_path / "wheel")
    assert not (tmp_path / "wheel").exists()


@pytest.fixture(scope="session")
def base(upstream: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system's Python and C++ library."""
    target = tmp_path_factory.mktemp("python") / "base"
    environment.create(target, upstream, [f"python {PYTHON}.*", "libstdcxx"], None)
    bytecode.compile_files(target, upstream)
    return target


@pytest.fixture(scope="session")
def installed_wheel(
    wheel: Path, base: Path, upstream: list[str], run_in: Run, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """installed_wheel(PyTorch minor): a virtual environment with the wheel and PyPI's PyTorch, as uv installs them."""
    made: dict[str, Path] = {}

    def install(torch: str) -> Path:
        if torch not in made:
            home = tmp_path_factory.mktemp("venv") / torch
            done = run_in(base, ["python", "-m", "venv", "--without-pip", home], "neoverse-n1")
            assert done.returncode == 0, done.stderr
            # pip takes this machine's answers where a wheel asks for the platform, as PyTorch's do.
            platform = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", PYTHON, "--no-build"]
            # What the bootstrap channel is made of lies in the cache; elsewhere PyPI is asked.
            folders = sorted({file.parent for file in (CACHE / "wheels").glob("*/*.whl")})
            places = ["--no-index", *(f"--find-links={folder}" for folder in folders)] if folders else []
            packages = [wheel, f"torch=={torch}.*", "pytest", "hypothesis"]
            run(["uv", "pip", "install", *platform, *places, "--target", home / SITE_PACKAGES, *packages])
            bytecode.compile_files(home, upstream)
            made[torch] = home
        return made[torch]

    return install


@pytest.fixture
def run_venv(installed_wheel: Callable[[str], Path], base: Path, run_in: Run) -> Run:
    """run_venv(PyTorch minor, [word…], CPU, NAME=value…): runs Python in the environment with that PyTorch."""

    def run_python(torch: str, words: list[str | Path], cpu: str, **variables: str) -> subprocess.CompletedProcess[str]:
        home = installed_wheel(torch)
        return run_in(home, ["python", *words], cpu, LD_LIBRARY_PATH=str(base / "lib"), **variables)

    return run_python


@pytest.mark.parametrize(("torch", "cpu", "expected"), [(TORCH, "neoverse-n1", 0), (TORCHES[-1], "neoverse-v1", 1)])
def test_the_build_that_fits_is_taken(run_venv: Run, torch: str, cpu: str, expected: int) -> None:
    program = (
        "import acl_qlinear, runpy, sys\n"
        "print(acl_qlinear._load.BUILD.library)\n"
        "sys.argv[1:] = ['--check']\n"
        "runpy.run_module('acl_qlinear.bench', run_name='__main__')\n"
    )
    done = run_venv(torch, ["-c", program], cpu)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == f"builds/{MICROARCHITECTURES[expected]}/{BUILD_TAGS[torch]}.so"
    assert f"on {VARIANTS['acl_variant'][expected]}: results are right" in done.stdout


# What this CPU lacks, by microarchitecture, PyTorch's version, and the build's microarchitecture and minor.
SELECTIONS: list[tuple[dict[str, list[str]], str | None, tuple[str, str]]] = [
    ({}, "2.6.0", ("neoverse-v1", "2.6")),
    ({}, "2.9.1+cpu", ("neoverse-v1", "2.9")),
    ({}, "2.10.0", ("neoverse-v1", "2.10")),
    ({}, "3.1.0a0+git1", ("neoverse-v1", "2.10")),
    ({"neoverse-v1": ["sve"]}, "2.8.0", ("armv8.2-a", "2.8")),
    # None fits.
    ({}, None, ("neoverse-v1", "2.10")),
    ({}, "2.5.1", ("neoverse-v1", "2.10")),
    ({"neoverse-v1": ["atomics", "sve"], "armv8.2-a": ["atomics"]}, "2.8.0", ("armv8.2-a", "2.8")),
]


@pytest.mark.parametrize(("missing", "version", "expected"), SELECTIONS)
def test_selection(
    wheel: Path, missing: dict[str, list[str]], version: str | None, expected: tuple[str, str], tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        builds, build = (archive.extract(f"acl_qlinear/{name}.py", tmp_path) for name in ("_builds", "_build"))
    select = runpy.run_path(builds)["select"]
    held = types.SimpleNamespace(**runpy.run_path(build))
    assert select(held, version, lambda name: missing.get(name, []))[:2] == expected


def test_what_does_not_fit_is_said(run_venv: Run) -> None:
    program = "import torch; torch.__version__ = '2.5.1'; import acl_qlinear"
    done = run_venv(TORCH, ["-c", program], "neoverse-v1")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and f"built for PyTorch {', '.join(TORCHES)} and later, and PyTorch 2.5.1 is" in last
    assert last.endswith(f'install the build that fits: pip install --upgrade "torch>={TORCHES[0]}"')


def test_doctor_in_a_virtual_environment(run_venv: Run, installed_wheel: Callable[[str], Path]) -> None:
    doctor = installed_wheel(TORCH) / SITE_PACKAGES / "acl_qlinear/doctor.py"
    done = run_venv(TORCH, [doctor], "neoverse-v1")
    assert done.returncode == 0, done.stdout + done.stderr
    variants, minors = (", ".join(words) for words in (VARIANTS["acl_variant"], TORCHES))
    first = f"acl-qlinear 0.2.0 (built for {variants}, ACL {ACL_VERSION}, PyTorch {minors} and later) in "
    assert done.stdout.startswith(first)
    assert "built for neoverse-v1, which this CPU can run" in done.stdout


def test_models(run_venv: Run, tmp_path: Path) -> None:
    _, *words = inside_command(files=["test_models.py"])
    done = run_venv(TORCHES[-1], words, "neoverse-n1", EXCHANGE=str(tmp_path), EXCHANGE_AS="wheel.pt")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1])
