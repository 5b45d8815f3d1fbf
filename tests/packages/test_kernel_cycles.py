# SPDX-License-Identifier: MIT
"""A second opinion on the kernels: llvm-mca's models of the cores, asked about the object code in the packages."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from aclpkg.base.processes import run

from .test_contents import libraries

CORES = ["neoverse-n1", "neoverse-n2", "neoverse-v1", "neoverse-v2"]
# Those of ours, and ACL's. What they multiply with, and how many of these a core can do in a cycle, by its number of
# vector units and their width: an N1 and an N2 have two of 128 bits, a V1 has four, or two of 256 for SVE, a V2 four.
NEON, SVE = (2, 2, 4, 4), (0, 2, 2, 4)
KERNELS = {
    "neon_mull_4x4": ("(?:smull2?|sadalp)", NEON),
    "neon_dot_1x12": ("sdot", NEON),
    "neon_dot_2x12": ("sdot", NEON),
    "neon_dot_4x12": ("sdot", NEON),
    "neon_mmla_2x12": ("smmla", NEON),
    "neon_mmla_4x12": ("smmla", NEON),
    "sve_dot_4x3vl": ("sdot", SVE),
    "sve_mmla_2x3vl": ("smmla", SVE),
    "sve_mmla_4x3vl": ("smmla", SVE),
    "a64_gemm_s8_8x12": ("sdot", NEON),
    "a64_interleaved_s8s32_mmla_8x12": ("smmla", NEON),
    "sve_interleaved_s8s32_dot_8x3VL": ("sdot", SVE),
    "sve_interleaved_s8s32_mmla_8x3VL": ("smmla", SVE),
}
# GCC makes a function of the template, to which this one jumps.
SYMBOLS = {"neon_dot_4x12": "neon_dotILi4E"}
FEATURES = "+sve,+dotprod,+i8mm"
Instructions = list[tuple[int, str]]


def disassembled(library: Path, kernel: str) -> Instructions:
    """The addresses and the text of a kernel's instructions."""
    pattern = rf"^(\w+) .* F \.text\s+(\w+) \w*\d{SYMBOLS.get(kernel, kernel + 'E')}\w*PKaS\d_Pi+$"
    ((start, size),) = re.findall(pattern, run(["llvm-objdump-19", "-t", library]), re.MULTILINE)
    start, size = int(start, 16), int(size, 16)
    # By addresses, since ACL's assembly has symbols within its functions.
    options = [
        "--no-show-raw-insn",
        f"--mattr={FEATURES}",
        f"--start-address={start}",
        f"--stop-address={start + size}",
    ]
    text = run(["llvm-objdump-19", "-d", *options, library])
    codes = [(int(address, 16), code.strip()) for address, code in re.findall(r"^ *(\w+):\s+(.*)$", text, re.MULTILINE)]
    return [(address, decoded(code[-10:]) if ".word" in code else code) for address, code in codes]


@cache
def decoded(word: str) -> str:
    """An instruction that ACL's assembly has as a number."""
    given = " ".join(hex(byte) for byte in int(word, 16).to_bytes(4, "little"))
    words = ["llvm-mc-19", "--disassemble", "--triple=aarch64", f"--mattr={FEATURES}"]
    return run(words, input=given).splitlines()[-1].strip()


def hottest_loop(instructions: Instructions, multiply: str) -> list[str]:
    """The instructions of the loop without others in it that multiplies most."""
    loops = []
    for last, code in instructions:
        branch = re.match(r"(?:b\.\w+|cbn?z|tbn?z)\s.*0x(\w+) <", code)
        if branch and (first := int(branch[1], 16)) <= last:
            loops.append((first, last))
    inner = [
        (first, last)
        for first, last in loops
        if not any(first <= other[0] and other[1] <= last for other in loops if other != (first, last))
    ]
    bodies = [[code for address, code in instructions if first <= address <= last] for first, last in inner]
    return max(bodies, key=lambda body: count(body, multiply))


def count(codes: list[str], multiply: str) -> int:
    return sum(bool(re.match(rf"{multiply}\s", code)) for code in codes)


def cycles(loop: list[str], core: str) -> float | None:
    """What one turn of a loop takes, as llvm-mca says; None where the core lacks its instructions."""
    *body, branch = [re.sub(r"\s*<.*", "", code) for code in loop]
    text = "\n".join(["loop:", *body, re.sub(r"0x\w+$", "loop", branch), ""])
    if core == "neoverse-n1" and re.search(r"\bz\d|smmla", text):
        return None
    turns = 1000
    words = ["llvm-mca-19", "-mtriple=aarch64", f"-mcpu={core}", f"-mattr={FEATURES}", f"-iterations={turns}"]
    found = re.search(r"^Total Cycles: +(\d+)$", run(words, input=text), re.MULTILINE)
    assert found
    return int(found[1]) / turns


@pytest.fixture(scope="module")
def loops(unpacked: Callable[[str], Path]) -> dict[str, list[str]]:
    acl, ours = libraries(unpacked("neoverse_v1"))
    return {
        kernel: hottest_loop(disassembled(ours if re.match("neon_|sve_(dot|mmla)", kernel) else acl, kernel), multiply)
        for kernel, (multiply, _) in KERNELS.items()
    }


def test_table_of_second_opinions(
    loops: dict[str, list[str]], hold_table: Callable[[str, str, list[str]], None]
) -> None:
    """docs/speed.md has them: cycles of a turn, and the share of them in which the vector units multiply."""
    lines = [f"| kernel | multiplications in its loop | {' | '.join(CORES)} |", f"| --- | --- |{' --- |' * len(CORES)}"]
    for kernel, loop in loops.items():
        multiply, units = KERNELS[kernel]
        multiplications = count(loop, multiply)
        cells = []
        for core, at_once in zip(CORES, units, strict=True):
            taken = cycles(loop, core)
            cells.append("" if taken is None else f"{taken:.1f} ({multiplications / at_once / taken:.2f})")
        lines.append(f"| `{kernel}` | {multiplications} | {' | '.join(cells)} |")
    hold_table("docs/speed.md", "kernel", lines)
