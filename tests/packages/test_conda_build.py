# SPDX-License-Identifier: MIT
"""The recipes as conda-build and plain rattler-build take them, without ci/."""

import platform
from pathlib import Path

import pytest
import rattler_build
from aclpkg.base import archives, environment
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import DEBIAN_VARIANTS, PUBLIC_VARIANTS, VARIANTS
from aclpkg.build import dist, recipes
from aclpkg.inputs.bootstrap import SUBDIR
from rattler_build.render import RenderConfig, RenderedVariant
from rattler_build.tool_config import PlatformConfig, ToolConfiguration

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


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_plain_rattler_build(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`rattler-build build --recipe recipe/NAME`, by its library: the variants beside the recipe are found."""
    options: dict = {"channel": dist.upstream_of_built_channel(), "output_dir": tmp_path, "test": "skip"}
    options |= {"target_platform": environment.PLATFORM, "host_platform": environment.PLATFORM}
    rattler_build.build_recipes([ROOT / "recipe/acl-microarch/recipe.yaml"], **options)
    built = {file.name for file in (tmp_path / "noarch").glob("*.conda")}
    assert built == {file.name for file in (dist.CHANNEL / "noarch").glob("*.conda")}
    capfd.readouterr()
    rattler_build.build_recipes([ROOT / "recipe/arm-compute-library/recipe.yaml"], render_only=True, **options)
    printed = "".join(capfd.readouterr())
    assert printed.count(PUBLIC_VARIANTS["acl_source"][0]) >= len(VARIANTS["operators"]) * len(VARIANTS["acl_variant"])
