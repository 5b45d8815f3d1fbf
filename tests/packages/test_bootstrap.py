# SPDX-License-Identifier: MIT
"""The compiler that builds are made with: each of its programs works where a client has put it."""

import subprocess
from pathlib import Path

import pytest
from aclpkg.base.elf import is_program_for
from aclpkg.base.processes import run
from aclpkg.inputs import emulator
from aclpkg.inputs.bootstrap import BUILD_ARCH, TRIPLET

SOURCE = '#include <stdio.h>\nint main(void) { return puts("compiled") < 0; }\n'


def test_programs_start(compiler: Path) -> None:
    programs = [file for file in (compiler / "bin").glob("aarch64-*") if is_program_for(file, BUILD_ARCH)]
    assert len(programs) > 15
    for program in programs:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (program, done.stderr)


@pytest.mark.parametrize("options", [[], ["-flto"]], ids=["plain", "lto"])
@pytest.mark.parametrize(("language", "tool"), [("c", "gcc"), ("cpp", "g++")])
def test_languages(compiler: Path, tmp_path: Path, language: str, tool: str, options: list[str]) -> None:
    source, program = tmp_path / f"main.{language}", tmp_path / "program"
    source.write_text(SOURCE)
    sysroot = f"--sysroot={compiler / TRIPLET / 'sysroot'}"
    static = ["-static-libgcc", *(["-static-libstdc++"] if tool == "g++" else [])]
    run([compiler / f"bin/{TRIPLET}-{tool}", sysroot, "-O2", *options, *static, source, "-o", program])
    assert run(emulator.emulated([program], "neoverse-n1")) == "compiled\n"
