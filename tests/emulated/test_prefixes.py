# SPDX-License-Identifier: MIT
"""Runs tests/emulated/inside inside the installed prefixes."""

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base.files import write_atomically
from aclpkg.base.pins import rows
from aclpkg.inputs import emulator

from ..conftest import MICROARCHITECTURES, PREFIXES, TORCH, TORCHES
from ..emulation import INSIDE, inside_command, printed_by_passing_tests

Run = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where each prefix leaves models and digests for the others, one for all of pytest-xdist's workers."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "exchange"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def run_tests(installed: Installed, run_in: Run, exchange: Path, inductor: dict[str, str]) -> Callable[..., str]:
    """run_tests(microarchitecture, PyTorch, option…): runs the tests inside a prefix; what pytest printed."""

    def run(
        microarchitecture: str, torch: str, *options: str, files: list[str] | None = None, cpu: str | None = None
    ) -> str:
        with_libraries = torch == TORCH
        ignored = [] if with_libraries else [f"--ignore={INSIDE / file}" for file in OF_LIBRARIES]
        done = run_in(
            installed(microarchitecture, torch),
            inside_command(*options, *ignored, files=files),
            cpu or emulator.CPUS[microarchitecture][0],
            ONEDNN_PIN=ONEDNN[torch],
            EXCHANGE=str(exchange),
            EXCHANGE_AS=f"{microarchitecture}-{torch}.pt",
            TORCHAO="1" if with_libraries else "",
            **inductor,
            **{name: value for name, value in os.environ.items() if name.startswith("FUZZ_")},
        )
        return printed_by_passing_tests(done)

    return run


ONEDNN = dict(rows("pytorch", "onednn"))
OLDEST, NEWEST = TORCHES[0], TORCHES[-1]
# They need libraries that are only in the prefixes of one PyTorch.
OF_LIBRARIES = ["test_torchao.py", "test_compressed_tensors.py", "test_inductor.py", "test_transformers.py"]
# All tests, once for each way of building and for the oldest PyTorch. Where only the microarchitecture differs,
# those of numbers, saved models and processes; elsewhere a test for each part. --all runs all.
WHOLE = {(MICROARCHITECTURES[-1], TORCH), (MICROARCHITECTURES[0], OLDEST), (MICROARCHITECTURES[-1], NEWEST)}
OF_BOTH = ["test_operators.py", "test_models.py", "test_fuzz.py", "test_processes.py"]
OF_EACH = [
    "test_operators.py",
    "test_models.py",
    "test_processes.py",
    "test_pt2e.py",
    "test_quantize.py::test_quantize",
]


def files_for(microarchitecture: str, torch: str) -> list[str] | None:
    """What of the tests inside runs in a prefix; None for all."""
    if (microarchitecture, torch) in WHOLE:
        return None
    return OF_BOTH if torch == TORCH else OF_EACH


WHOLE_FIRST = sorted(PREFIXES, key=lambda prefix: files_for(*prefix) is not None)


def compare_with_others(exchange: Path, name: str, printed: str) -> set[str]:
    """Asserts that examples and results are the same as wherever tests ran before; the names of all these."""
    digests = "\n".join(re.findall("^(?:examples|digest) .+", printed, re.MULTILINE))
    write_atomically(exchange / f"{name}.digests", digests)
    of_all = {file.stem: file.read_text() for file in exchange.glob("*.digests")}
    assert set(of_all.values()) == {digests} and digests.count("\n") == 1, of_all
    return set(of_all)


@pytest.mark.parametrize(("microarchitecture", "torch"), WHOLE_FIRST, ids=["-".join(row) for row in WHOLE_FIRST])
def test_inside_prefix(
    run_tests: Callable[..., str], exchange: Path, pytestconfig: pytest.Config, microarchitecture: str, torch: str
) -> None:
    """The tests inside, with the same examples and the same bits in every prefix, each started from another folder."""
    chosen = shlex.split(pytestconfig.getoption("inside"))
    everything = chosen or pytestconfig.getoption("--all")
    files = None if everything else files_for(microarchitecture, torch)
    printed = run_tests(microarchitecture, torch, *chosen, files=files)
    if chosen:
        return
    done = compare_with_others(exchange, f"{microarchitecture}-{torch}", printed)
    # Each has loaded what was there before; the oldest PyTorch and the other build load what all have left.
    if done.issuperset("-".join(prefix) for prefix in PREFIXES):
        printed = run_tests(*PREFIXES[0], "-k", "test_saved_models_load_everywhere")
        assert f"loaded {len(PREFIXES)}" in printed


# Users' CPUs that are not what a build is tried on, and ACL's kernel there: relatives of Graviton 4, Grace, Axion and
# Cobalt have vectors of 128 bits, an A64FX has vectors of 512 and no dot products in NEON.
OTHER_CPUS = [
    ("neoverse_v1", "neoverse-n2", "a64_interleaved_s8s32_mmla_8x12"),
    ("armv8_2a", "neoverse-n2", "a64_interleaved_s8s32_mmla_8x12"),
    ("armv8_2a", "cortex-a76", "a64_gemm_s8_8x12"),
    ("armv8_2a", "a64fx", "sve_interleaved_s8s32_dot_8x3VL"),
]


@pytest.mark.skipif(emulator.NATIVE, reason="needs emulated CPUs")
@pytest.mark.parametrize(("microarchitecture", "cpu", "kernel"), OTHER_CPUS)
def test_other_cpus(
    run_tests: Callable[..., str],
    exchange: Path,
    pytestconfig: pytest.Config,
    microarchitecture: str,
    cpu: str,
    kernel: str,
) -> None:
    """The operators' tests; the same bits as everywhere."""
    if (microarchitecture, cpu) != OTHER_CPUS[0][:2] and not pytestconfig.getoption("--all"):
        pytest.skip("minutes for each CPU: ci/test.sh --all")
    printed = run_tests(microarchitecture, TORCH, files=["test_operators.py"], cpu=cpu)
    compare_with_others(exchange, f"{microarchitecture}-{cpu}", printed)
    assert f"\nkernel {kernel}\n" in printed
