# SPDX-License-Identifier: MIT
"""ci/aclpkg is a house of five storeys: what stands on one is used by those above, never the other way round."""

import ast
from collections import Counter
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT

HOUSE = ROOT / "ci/aclpkg"
# From the ground up; wings of one storey do not know each other.
STOREYS = [{"base"}, {"inputs"}, {"build"}, {"measure", "release", "deploy"}, {"commands"}]
WINGS = sorted(path.name for path in HOUSE.iterdir() if (path / "__init__.py").exists())
MODULES = sorted(HOUSE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """The modules of aclpkg that a module imports, anywhere in it, as "wing.module"."""
    found = set()
    package = file.relative_to(HOUSE.parent if HOUSE in file.parents else ROOT).parts[:-1]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = (*start, *(node.module or "").split(".")) if node.module else start
            # `from . import module` and `from .module import name` look the same but for the file.
            for alias in node.names:
                whole = (*base, alias.name)
                found.add(whole if HOUSE.parent.joinpath(*whole).with_suffix(".py").exists() else base)
    return {".".join(parts[1:]) for parts in found if parts and parts[0] == "aclpkg"}


def functions(file: Path) -> list[str]:
    return [node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)]


def test_every_wing_has_its_storey() -> None:
    assert set(WINGS) == set().union(*STOREYS) and len(STOREYS) <= 5
    assert all(len(file.relative_to(HOUSE).parts) == 2 for file in MODULES if file != HOUSE / "__init__.py")


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_imports_go_down(file: Path) -> None:
    if file == HOUSE / "__init__.py":
        assert not imported(file)
        return
    wing = file.parent.name
    storey = next(number for number, wings in enumerate(STOREYS) if wing in wings)
    allowed = {wing}.union(*STOREYS[:storey])
    assert {module.split(".")[0] for module in imported(file)} <= allowed


def test_modules_with_a_main_are_the_commands() -> None:
    with_main = {f"{file.parent.name}.{file.stem}" for file in MODULES if "main" in functions(file)}
    commands = {f"commands.{file.stem}" for file in (HOUSE / "commands").glob("[!_]*.py")}
    assert with_main == commands
    users = [*MODULES, *(ROOT / "tests").rglob("*.py")]
    assert not commands & set().union(*map(imported, users))


@pytest.mark.parametrize("wing", WINGS)
def test_functions_of_a_wing_have_names_of_their_own(wing: str) -> None:
    names = Counter(name for file in (HOUSE / wing).glob("*.py") for name in functions(file) if name != "main")
    assert not [name for name, count in names.items() if count > 1]
