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
from typing import Any

import pytest
from aclpkg.base import archives, elf, environment
from aclpkg.base.cache import cached_dir
from aclpkg.base.hashes import sha256
from aclpkg.base.messages import CiError
from aclpkg.base.paths import CACHE
from aclpkg.base.pins import EPOCH, PYTHON, SITE_PACKAGES, TORCH, VARIANTS
from aclpkg.base.processes import run
from aclpkg.build import bytecode, dist
from aclpkg.inputs import debian, emulator
from aclpkg.inputs.bootstrap import BOOTSTRAP, TRIPLET
from aclpkg.release import wheel as wheels

from ..conftest import ACL_VERSION, BUILD_TAGS, MICROARCHITECTURES, TORCHES
from ..emulation import inside_command, printed_by_passing_tests

CPU = "neoverse-v1"
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


def requirements(torch: str) -> list[str]:
    return [f"torch=={torch}.*", "pytest", "hypothesis"]


def install_packages(target: Path, python: str, packages: list[str | Path], *places: str) -> None:
    # pip takes this machine's answers where a wheel asks for the platform, as PyTorch's do.
    platform = ["--python-platform", "aarch64-manylinux_2_28", "--python-version", python, "--no-build"]
    run(["uv", "pip", "install", *platform, *places, "--target", target, *packages])


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
            # What the bootstrap channel is made of lies in the cache; elsewhere PyPI is asked.
            folders = sorted({file.parent for file in (CACHE / "wheels").glob("*/*.whl")})
            places = ["--no-index", *(f"--find-links={folder}" for folder in folders)] if folders else []
            install_packages(home / SITE_PACKAGES, PYTHON, [wheel, *requirements(torch)], *places)
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
    printed_by_passing_tests(done)


def test_pytorch_with_versions_in_its_libraries_names(
    installed_wheel: Callable[[str], Path], base: Path, run_in: Run, tmp_path: Path
) -> None:
    """As distributions build it: libtorch_cpu.so.2.10."""
    home, changed = tmp_path / "venv", tmp_path / "changed.so"
    run(["cp", "-al", installed_wheel(TORCHES[-1]), home])
    names = {name: f"{name}.{TORCHES[-1]}" for name in ("libc10.so", "libtorch_cpu.so")}
    needed = [word for old, new in names.items() for word in ("--replace-needed", old, new)]
    torch = home / SITE_PACKAGES / "torch"
    for file in [*torch.glob("lib/*.so*"), *torch.glob("_C*.so")]:
        soname = ["--set-soname", names[file.name]] if file.name in names else []
        run(["patchelf", *soname, *needed, "--output", changed, file])
        file.unlink()
        changed.rename(file.with_name(names.get(file.name, file.name)))
    words = ["python", "-m", "acl_qlinear.bench", "--check"]
    done = run_in(home, words, CPU, LD_LIBRARY_PATH=str(base / "lib"))
    assert done.returncode == 0, done.stderr
    assert "results are right" in done.stdout


@pytest.fixture
def run_short_set(run_in: Run, tmp_path: Path) -> Callable[..., None]:
    """run_short_set(python, option…, NAME=value…): tests by a Python, its path; not PT2E's, which take torchao."""

    def run_tests(python: Path, *options: str, root: Path | None = None, **variables: str) -> None:
        files = ["test_operators.py", "test_models.py", "test_packed_files.py", "test_processes.py"]
        _, *words = inside_command(*options, files=files)
        exchange = {"EXCHANGE": str(tmp_path), "EXCHANGE_AS": "wheel.pt"}
        printed_by_passing_tests(run_in(tmp_path, [python, *words], CPU, root=root, **exchange, **variables))

    return run_tests


@pytest.mark.skipif(emulator.NATIVE, reason="these Pythons bring the C library of their release, for emulation")
@pytest.mark.parametrize("spec", BOOTSTRAP["pythons"], ids=lambda spec: spec["version"])
def test_later_pythons(
    pytestconfig: pytest.Config, wheel: Path, tmp_path: Path, run_short_set: Callable[..., None], spec: dict[str, Any]
) -> None:
    """A release of Debian with its own Python and C library, and PyPI's PyTorch for that Python."""
    if not pytestconfig.getoption("--all"):
        pytest.skip("downloads PyTorch for another Python, and takes five minutes: ci/test.sh --all")
    debs = debian.packages(spec["suite"], "arm64", spec["packages"])
    name = f"python-{spec['version']}"
    root = cached_dir(name, [str(deb) for deb in debs], lambda target: debian.unpack(debs, target))
    install_packages(tmp_path / "packages", spec["version"], [wheel, *requirements(spec["pytorch"])])
    python = root / f"usr/bin/python{spec['version']}"
    run_short_set(python, "-k", "not onednn", root=root, PYTHONPATH=str(tmp_path / "packages"))


def make_stand_ins(compiler: Path, libraries: list[Path], target: Path) -> None:
    """CUDA's libraries with functions that answer that there is no device, for those that need them."""
    needed: dict[str, dict[str, set[str]]] = {}
    for library in libraries:
        for name, versions in elf.needed_symbols(library).items():
            for version, symbols in versions.items():
                needed.setdefault(name, {}).setdefault(version, set()).update(symbols)
            needed.setdefault(name, {})
    anywhere = set(filter(re.compile("cu|nv|nccl").match, needed[""][""]))
    target.mkdir()
    for name in filter(re.compile("lib(cu|nv|nccl)").match, needed.keys() - {library.name for library in libraries}):
        source, script = target / "stand_in.c", target / "stand_in.map"
        functions = set().union(*needed[name].values()) if needed[name] else anywhere
        source.write_text("".join(f"int {function}(void) {{ return 100; }}\n" for function in functions))
        script.write_text(
            "".join(f"{version} {{ {'; '.join(symbols)}; }};\n" for version, symbols in needed[name].items())
        )
        options = [f"-Wl,-soname,{name}", *[f"-Wl,--version-script={script}"] * bool(needed[name])]
        run([compiler / f"bin/{TRIPLET}-gcc", "-shared", "-nostdlib", "-w", *options, source, "-o", target / name])


@pytest.mark.parametrize("torch", ["2.14.1", "2.15.0"])
def test_newest_pytorchs(
    pytestconfig: pytest.Config, wheel: Path, base: Path, compiler: Path, tmp_path: Path,
    run_short_set: Callable[..., None], torch: str,
) -> None:  # fmt: skip
    """PyPI's PyTorch for CUDA, on a machine without a GPU and without CUDA's libraries."""
    if not pytestconfig.getoption("--all"):
        pytest.skip("downloads PyTorch for CUDA, and takes five minutes: ci/test.sh --all")
    packages, stand_ins = tmp_path / "packages", tmp_path / "stand-ins"
    install_packages(packages, PYTHON, [f"torch=={torch}"], "--no-deps")
    others = ["numpy", "rich", "filelock", "typing_extensions", "sympy", "networkx", "jinja2", "fsspec", "setuptools"]
    install_packages(packages, PYTHON, [*others, "pytest", "hypothesis"])
    install_packages(packages, PYTHON, [wheel], "--no-deps")
    make_stand_ins(compiler, list(packages.glob("torch/lib/*.so*")), stand_ins)
    # PyTorch 2.15's own int8 layers give wrong results or raise where the CPU is emulated.
    of_ours = "not onednn and not same_as_pytorchs and not convert and not fused"
    places = {"PYTHONPATH": str(packages), "LD_LIBRARY_PATH": f"{base}/lib:{stand_ins}"}
    run_short_set(base / "bin/python", "-k", of_ours, **places)
