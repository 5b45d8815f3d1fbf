# SPDX-License-Identifier: MIT
"""Spack's and EasyBuild's descriptions of both packages, from the pins of the recipes.

env/spack/spack_repo/acl_qlinear/    a Spack package repository (API v2)
env/easybuild/*.eb                   easyconfigs for foss-2024a
"""

import os
import shutil
from string import Template

import yaml

from ..base.paths import ROOT
from ..base.pins import MICROARCHITECTURES, PUBLIC_VARIANTS, VARIANTS, Microarchitecture, rows
from ..inputs.bootstrap import TORCH_VERSIONS

REPOSITORY = """\
# SPDX-License-Identifier: MIT
# Written by ci/spack-easybuild.sh.
repo:
  namespace: acl_qlinear
  api: v2.0
"""

SPACK_REPOSITORY = "spack/spack_repo/acl_qlinear"
# The PyTorchs that EasyBuild has for its toolchain of 2024, without CUDA.
EASYBUILD_TORCHES = ["2.6", "2.9"]
# The CPUs that every Spack of the last two years knows by name.
SPACK_TARGETS = {"neoverse_n1", "neoverse_v1", "neoverse_v2", "neoverse_n2"}


def _quoted(words: list[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def facts() -> dict[str, str]:
    """What the templates need of the pins."""
    version, source, sha256 = (PUBLIC_VARIANTS[key][0] for key in ("acl_version", "acl_source", "acl_sha256"))
    recipes = {
        name: yaml.safe_load((ROOT / f"recipe/{name}/recipe.yaml").read_text())
        for name in ("arm-compute-library", "acl-qlinear")
    }
    return {
        "version": version,
        "acl_version": version,
        "sha256": sha256,
        "source": source,
        "source_folder": source.rpartition("/")[0],
        "source_file": source.rpartition("/")[2],
        "own_version": recipes["acl-qlinear"]["context"]["version"],
        "homepage": recipes["arm-compute-library"]["about"]["homepage"],
    }


def _spack_build(microarchitecture: Microarchitecture) -> str:
    """A row of a table in Python: a build, and the CPUs that get it."""
    cpus = [name for name in microarchitecture.cpus if name in SPACK_TARGETS]
    return f'            "{microarchitecture.variant}": ({_quoted(cpus)}{"," * (len(cpus) == 1)}),'


def descriptions() -> dict[str, str]:
    """The text of each file, by its path in env/."""
    known = facts()
    everybody, *others = MICROARCHITECTURES.values()
    # The most specific first.
    others.sort(key=lambda one: -one.priority)
    spack = {
        **known,
        "operators": _quoted(VARIANTS["operators"]),
        "everybody": everybody.variant,
        "builds": "\n".join(map(_spack_build, others)),
        "torch": ",".join(
            f"{minor}.0:{'' if abi == 'stable' else minor}" for minor, abi in rows("pytorch", "pytorch_abi")
        ),
    }
    found = {f"{SPACK_REPOSITORY}/repo.yaml": REPOSITORY}
    for name in ("arm_compute_library", "py_acl_qlinear"):
        own = {**spack, "version": known["own_version"]} if name == "py_acl_qlinear" else spack
        found[f"{SPACK_REPOSITORY}/packages/{name}/package.py"] = _fill(f"spack/{name}.py.in", own)
    for variant in VARIANTS["acl_variant"]:
        suffix = "" if variant == VARIANTS["acl_variant"][0] else f"-{variant}"
        own = {**known, "variant": variant, "suffix": suffix}
        found[f"easybuild/arm-compute-library-{known['version']}-GCCcore-13.3.0{suffix}.eb"] = _fill(
            "easybuild/arm-compute-library.eb.in", own
        )
        for torch in [TORCH_VERSIONS[minor] for minor in EASYBUILD_TORCHES]:
            name = f"acl-qlinear-{known['own_version']}-foss-2024a-PyTorch-{torch}{suffix}.eb"
            found[f"easybuild/{name}"] = _fill("easybuild/acl-qlinear.eb.in", {**own, "torch": torch})
    return found


def _fill(template: str, values: dict[str, str]) -> str:
    return Template((ROOT / "env" / template).read_text()).substitute(values)


def write_descriptions() -> int:
    """Replaces what is in env/spack and env/easybuild, but for the templates; the number of files."""
    shutil.rmtree(ROOT / "env/spack/spack_repo", ignore_errors=True)
    for old in (ROOT / "env/easybuild").glob("*.eb"):
        old.unlink()
    texts = descriptions()
    for path, text in texts.items():
        file = ROOT / "env" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    # Spack builds by the same script as everybody.
    script = ROOT / "env" / SPACK_REPOSITORY / "packages/arm_compute_library/build_acl.sh"
    script.symlink_to(os.path.relpath(ROOT / "build_acl.sh", script.parent))
    return len(texts)
