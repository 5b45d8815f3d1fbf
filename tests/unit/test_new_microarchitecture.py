# SPDX-License-Identifier: MIT
"""A microarchitecture is added in three files: recipe/variants.yaml, build_acl.sh and src/acl_qlinear/_cpu.py."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT

# What is added to each file, before the first line that begins like this.
VARIANTS = {
    "acl_variant": "neoverse-v2",
    "microarchitecture": "neoverse_v2",
    "microarchitecture_priority": 200,
    "emulated_cpus": "neoverse-v2",
    "cpu_name": "neoverse_v2",
    "cpu_microarchitecture": "neoverse_v2",
}
CASE = """\
    neoverse-v2)
        march=armv9-a+i8mm+bf16+fp16
        variant_options=(arch=armv8.6-a-sve2 multi_isa=0 custom_options=disable_mmla_fp)
        variant_flags="-march=$march -mtune=neoverse-v2" ;;
"""
FEATURES = '"neoverse-v2": {**_ARMV8_2A, "sve": (AT_HWCAP, 22), "sve2": (AT_HWCAP2, 1)},\n'

# Runs in the copy.
QUESTIONS = """
import json
from aclpkg.base.pins import MICROARCHITECTURES
from aclpkg.build import recipes
from aclpkg.deploy import modules, spack_easybuild
from aclpkg.inputs import emulator

wanted = {"operators": "qlinear"}
print(json.dumps({
    "builds": {name: [build for _, build in recipes.packages(name, **wanted)] for name in recipes.SOURCES},
    "emulated": emulator.CPUS["neoverse_v2"],
    "archspec": MICROARCHITECTURES["neoverse_v2"].archspec_cpu,
    "order": modules.microarchitectures(),
    "modulefiles": [modules._modulefile(kind, "acl-qlinear", "1.0") for kind in modules.KINDS],
    "descriptions": spack_easybuild.descriptions(),
}))
"""


def insert(file: Path, before: str, text: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if line.startswith(before))
    file.write_text("".join([*lines[:place], text, *lines[place:]]))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tools are made of and read, with neoverse_v2 in three files."""
    home = tmp_path_factory.mktemp("checkout")
    for name in ("ci", "env", "recipe", "src"):
        shutil.copytree(ROOT / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "build_acl.sh", home)
    table = home / "recipe/variants.yaml"
    for key, value in VARIANTS.items():
        text, count = re.subn(
            rf"^{key}:\n(?:  - .*\n)+", rf'\g<0>  - "{value}"\n', table.read_text(), flags=re.MULTILINE
        )
        assert count == 1
        table.write_text(text)
    insert(home / "build_acl.sh", "    '') fail \"--variant is missing", CASE)
    insert(home / "src/acl_qlinear/_cpu.py", '    "neoverse-v1": {', f"    {FEATURES}")
    return home


@pytest.fixture(scope="module")
def answers(checkout: Path) -> dict:
    # Without finalization, as the commands end.
    program = f"{QUESTIONS}\nimport os, sys; sys.stdout.flush(); os._exit(0)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(checkout / "ci")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_recipes_build_for_it(answers: dict) -> None:
    builds = answers["builds"]
    assert "neoverse_v2_neoverse_v2" in builds["acl-microarch"]
    assert "neoverse_v1_neoverse_v2" in builds["acl-microarch"]
    assert any(build.startswith("neoverse_v2_qlinear_") for build in builds["arm-compute-library"])
    ours = [build for build in builds["acl-qlinear"] if "_neoverse_v2_" in build]
    assert len(ours) == len(builds["acl-qlinear"]) / 3 and all(build.endswith("_200") for build in ours)


def test_tools_know_it(answers: dict) -> None:
    assert answers["emulated"] == ["neoverse-v2"] and answers["archspec"] == "neoverse_v2"
    assert answers["order"] == ["neoverse_v2", "neoverse_v1", "armv8_2a"]
    assert all("neoverse_v2" in text and "sve2" in text for text in answers["modulefiles"])
    files = answers["descriptions"]
    assert any(name.endswith("-neoverse-v2.eb") for name in files)
    spack = files["spack/spack_repo/acl_qlinear/packages/arm_compute_library/package.py"]
    assert '"neoverse-v2": ("neoverse_v2",),\n            "neoverse-v1": ("neoverse_v1", ' in spack


def test_build_acl_takes_it(checkout: Path) -> None:
    words = ["bash", checkout / "build_acl.sh", "--variant", "neoverse-v2", "--source", "/nowhere", "--prefix", "P"]
    environment = {**os.environ, "CC": "/nowhere/cc", "CXX": "/nowhere/c++"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    # Past the variant, at the compiler.
    assert done.returncode == 1 and "is not on PATH; install it" in done.stderr
