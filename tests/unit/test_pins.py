# SPDX-License-Identifier: MIT
"""Every version is written once, in recipe/variants.yaml, or agrees with it."""

import re
import runpy
from collections.abc import Callable

import archspec.cpu
import pytest
import tomllib
import yaml
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import MICROARCHITECTURES, PYTHON, TORCH, VARIANTS, Microarchitecture, chosen, rows
from aclpkg.inputs.bootstrap import BOOTSTRAP

from ..conftest import BUILD_TAGS, PREFIXES
from ..emulated.test_prefixes import OF_BOTH, OF_EACH, files_for

FEATURES = "docs/features.md"
REQUIRED_FEATURES = runpy.run_path(str(ROOT / "src/acl_qlinear/_cpu.py"))["REQUIRED_FEATURES"]


def test_acl_rows() -> None:
    assert len(VARIANTS["acl_version"]) == len(VARIANTS["acl_sha256"]) == len(VARIANTS["acl_source"])
    for version, source, sha256 in zip(
        VARIANTS["acl_version"], VARIANTS["acl_source"], VARIANTS["acl_sha256"], strict=True
    ):
        assert version in source and re.fullmatch("[0-9a-f]{64}", sha256)


def test_extension_version_is_the_recipes() -> None:
    recipe = yaml.safe_load((ROOT / "recipe/acl-qlinear/recipe.yaml").read_text())
    project = tomllib.loads((ROOT / "src/pyproject.toml").read_text())
    assert recipe["context"]["version"] == project["project"]["version"]


def test_bootstrap_channel_has_the_pinned_pytorch_minors() -> None:
    wheels = [w["version"].rsplit(".", 1)[0] for w in BOOTSTRAP["wheels"] if w["name"] == "pytorch"]
    assert wheels == VARIANTS["pytorch"]


@pytest.mark.parametrize("microarchitecture", MICROARCHITECTURES.values(), ids=lambda one: one.name)
def test_every_cpu_that_archspec_knows_to_be_able_gets_its_builds(microarchitecture: Microarchitecture) -> None:
    known = {name: target for name, target in archspec.cpu.TARGETS.items() if "aarch64" in map(str, target.ancestors)}
    features = set(REQUIRED_FEATURES[microarchitecture.variant])
    able = {name for name, target in known.items() if target.features >= features}
    assert microarchitecture.archspec_cpu in able
    # Names that this archspec has not heard of yet may be listed; names of generic levels are nobody's CPU.
    assert all(microarchitecture.runs_on(name) for name in able if not name.startswith("armv"))
    assert not [name for name in microarchitecture.cpus if name in known and name not in able]


def test_the_first_microarchitecture_is_everybodys() -> None:
    first, *others = MICROARCHITECTURES.values()
    assert first.priority == 0 and not first.cpus and all(one.priority > 0 and one.cpus for one in others)
    recipe = (ROOT / "recipe/arm-compute-library/recipe.yaml").read_text()
    assert f'microarchitecture != "{first.name}"' in recipe


def test_environment_files_have_the_pinned_versions() -> None:
    for name in ("build", "use"):
        text = (ROOT / f"env/conda/{name}.yaml").read_text()
        dependencies = dict(
            re.match(r"([\w-]+) ?(.*)", spec).groups()  # type: ignore[union-attr]
            for spec in yaml.safe_load(text)["dependencies"]
        )
        if name == "use":
            assert dependencies["pytorch"] == f"{TORCH}.*"
            assert "acl-qlinear" in dependencies
        else:
            assert dependencies["python"] == f"{PYTHON}.*"
            assert dependencies["gxx_linux-aarch64"] == f"{VARIANTS['cxx_compiler_version'][0]}.*"
            assert dependencies["sysroot_linux-aarch64"] == f"{VARIANTS['glibc_floor'][0]}.*"
            assert {"conda-build", "scons", "cmake", "pytest"} <= set(dependencies)


def test_bootstrap_channel_has_the_pinned_python() -> None:
    (python,) = [spec for spec in BOOTSTRAP["debian"] if spec["name"] == "python"]
    assert python["version_of"] == f"python{PYTHON}_" and f"libpython{PYTHON}-stdlib" in str(python["packages"])


def test_unknown_pin_is_an_error() -> None:
    with pytest.raises(Exception, match=r"acl_version 1\.0 is not in recipe/variants\.yaml, which has 24\.11"):
        chosen(acl_version="1.0")


def test_everything_from_pypi_is_pinned_by_hash() -> None:
    text = (ROOT / "ci/requirements.txt").read_text()
    pinned = re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==\S+(?: ; .*?)? \\\n +--hash=sha256:", text, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==", text, re.MULTILINE)) > 20
    wheels = [*BOOTSTRAP["wheels"], *BOOTSTRAP["peers"], BOOTSTRAP["minilm"]]
    assert all(re.fullmatch("[0-9a-f]{64}", sha) for wheel in wheels for sha in wheel["sha256"].values())


def test_table_of_what_goes_with_what(hold_table: Callable[[str, str, list[str]], None]) -> None:
    """docs/features.md says what the pins and the tests' own plan say."""
    names = {tuple(OF_BOTH): "numbers, saved models, processes", tuple(OF_EACH): "one for each part", (): "none"}
    columns = [f"tests inside `{name}`" for name in MICROARCHITECTURES]
    lines = [
        f"| PyTorch | build, by conda and in the wheel | {' | '.join(columns)} |",
        f"| --- | --- |{' --- |' * len(columns)}",
    ]
    for torch, abi in rows("pytorch", "pytorch_abi"):
        plans = [files_for(name, torch) if (name, torch) in PREFIXES else [] for name in MICROARCHITECTURES]
        cells = ["all" if plan is None else names[tuple(plan)] for plan in plans]
        later = " and later" if abi == "stable" else ""
        lines.append(f"| {torch}{later} | `{BUILD_TAGS[torch]}` | {' | '.join(cells)} |")
    hold_table(FEATURES, "PyTorch", lines)


def test_table_of_cpus(hold_table: Callable[[str, str, list[str]], None]) -> None:
    lines = ["| CPU, by archspec's name | build |", "| --- | --- |"]
    for one in reversed(MICROARCHITECTURES.values()):
        cpus = ", ".join(f"`{cpu}`" for cpu in one.cpus) or "every other name, an unknown one, or none"
        lines.append(f"| {cpus} | `{one.name}` |")
    hold_table(FEATURES, "CPU, by archspec's name", lines)


def test_what_every_build_takes() -> None:
    recipe = (ROOT / "recipe/acl-qlinear/recipe.yaml").read_text()
    (python,) = re.findall(r"- python >=(\S+)", recipe)
    glibc = VARIANTS["glibc_floor"][0]
    assert f"Every build takes Python {python} or newer, and glibc {glibc} or newer." in (ROOT / FEATURES).read_text()
