# SPDX-License-Identifier: MIT
"""The recipes as conda-build and plain rattler-build take them, without ci/."""

import os
import platform
from pathlib import Path

import pytest
import rattler_build
from aclpkg.base import archives, environment
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import DEBIAN_VARIANTS, PUBLIC_VARIANTS, VARIANTS, chosen
from aclpkg.build import dist, recipes
from aclpkg.inputs.bootstrap import SUBDIR
from aclpkg.release.staged_recipes import write_staged_recipes
from rattler_build.render import RenderConfig, RenderedVariant
from rattler_build.tool_config import PlatformConfig, ToolConfiguration

from ..conftest import BUILD_TAGS, MICROARCHITECTURES, TORCHES

MACHINE = SUBDIR[platform.machine()]


def rendered_by_conda_build(name: str) -> list[RenderedVariant]:
    """What conda-build 26.7 makes of recipe/NAME, with -m recipe/debian.yaml where ci/ takes it, too."""
    files = [ROOT / f"recipe/{name}/variants.yaml"]
    if VARIANTS["acl_version"] == DEBIAN_VARIANTS["acl_version"]:
        files.append(ROOT / "recipe/debian.yaml")
    variants = rattler_build.VariantConfig()
    for file in files:
        variants = variants.merge(rattler_build.VariantConfig.from_file(file))
    (target,) = variants.get("target_platform")
    config = RenderConfig(
        platform=PlatformConfig(target_platform=target, build_platform=MACHINE, host_platform=target), extra_context={}
    )
    recipe = rattler_build.Stage0Recipe.from_file(ROOT / f"recipe/{name}/recipe.yaml")
    return list(recipe.render(variants, config))


@pytest.mark.parametrize("name", recipes.SOURCES)
def test_build_strings_are_those_of_ci(name: str) -> None:
    assert [str(one.recipe.build.string) for one in rendered_by_conda_build(name)] == [
        build for _, build in recipes.packages(name)
    ]


def test_conda_build_makes_the_same_package(tmp_path: Path) -> None:
    """All of acl-microarch; compiled packages are built through the same call, by ci/build.sh."""
    for rendered in rendered_by_conda_build("acl-microarch"):
        built = rendered.run_build(
            tool_config=ToolConfiguration(
                skip_existing="none", noarch_build_platform=None, channel_priority="disabled"
            ),
            output_dir=tmp_path / "croot",
            channels=dist.upstream_of_built_channel(),
            no_build_id=True,
            package_format="conda",
            no_include_recipe=False,
        )
        (package,) = map(Path, built.packages)
        ours = dist.CHANNEL / "noarch" / package.name
        trees = []
        for number, file in enumerate((package, ours)):
            tree = tmp_path / f"{package.stem}-{number}"
            archives.unpack_package(file, tree)
            trees.append({p.relative_to(tree): p.read_bytes() for p in tree.rglob("*") if p.is_file()})
        assert [{p for p in tree if p.parts[0] != "info"} for tree in trees] == [set(), set()]
        assert all(tree[Path("info/index.json")] for tree in trees)
        records = [rattler_build.Package.from_file(file) for file in (package, ours)]
        assert len({(r.name, r.version, r.build_string, tuple(r.depends)) for r in records}) == 1
    assert len(list((tmp_path / "croot/noarch").glob("*.conda"))) == len(
        list((dist.CHANNEL / "noarch").glob("*.conda"))
    )


def rattler_build_options(output: Path) -> dict:
    """Of `rattler-build build`, on any machine: --target-platform and the like."""
    options: dict = {"output_dir": output, "test": "skip", "package_format": "conda"}
    return options | {"target_platform": environment.PLATFORM, "host_platform": environment.PLATFORM}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_plain_rattler_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`rattler-build build --recipe recipe/NAME`, by its library: the variants beside the recipe are found."""
    options = rattler_build_options(tmp_path) | {"channel": dist.upstream_of_built_channel()}
    rattler_build.build_recipes([ROOT / "recipe/acl-microarch/recipe.yaml"], **options)
    built = {file.name for file in (tmp_path / "noarch").glob("*.conda")}
    assert built == {file.name for file in (dist.CHANNEL / "noarch").glob("*.conda")}
    capfd.readouterr()
    rattler_build.build_recipes([ROOT / "recipe/arm-compute-library/recipe.yaml"], render_only=True, **options)
    printed = "".join(capfd.readouterr())
    assert printed.count(PUBLIC_VARIANTS["acl_source"][0]) >= len(VARIANTS["operators"]) * len(VARIANTS["acl_variant"])


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_staged_recipes_are_built_by_plain_rattler_build(
    tmp_path: Path, channels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of acl-microarch, and one row of acl-qlinear, with nothing of the checkout but what was written."""
    microarch, qlinear, acl = write_staged_recipes(tmp_path / "staged")
    assert [folder.name for folder in (microarch, qlinear, acl)] == sorted(recipes.SOURCES)
    for file in (tmp_path / "staged").rglob("*"):
        assert not file.is_symlink()
    for folder in (microarch, qlinear, acl):
        assert "../" not in (folder / "recipe.yaml").read_text()
    assert os.access(acl / "build_acl.sh", os.X_OK)
    options = rattler_build_options(tmp_path / "output") | {"channel": channels}
    rattler_build.build_recipes([microarch / "recipe.yaml"], **options)
    # The solver for the target must not ask this machine.
    monkeypatch.setenv("CONDA_OVERRIDE_ARCHSPEC", "neoverse_n1")
    newest = TORCHES[-1]
    chosen_rows = chosen(microarchitecture=MICROARCHITECTURES[0], pytorch=newest)
    row = {key: values[-1:] for key, values in chosen_rows.items()}
    del row["zip_keys"]
    rattler_build.build_recipes([qlinear / "recipe.yaml"], variant_overrides=row, **options)
    built = {file.name for file in (tmp_path / "output").glob("*/*.conda")}
    ours = {file.name for file in dist.CHANNEL.glob("*/*.conda")}
    assert built == {name for name in ours if name.startswith("acl-microarch")} | {
        name for name in ours if name.startswith("acl-qlinear-") and f"{BUILD_TAGS[newest]}_armv8_2a" in name
    }
