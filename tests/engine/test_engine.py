# SPDX-License-Identifier: MIT
"""Builds and runs the C++ tests of kernels and engine (src/csrc/tests), which take ACL and no PyTorch."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from aclpkg.base import archives, environment
from aclpkg.base.cache import cached_dir
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import VARIANTS
from aclpkg.build import dist
from aclpkg.inputs import bootstrap, debian, emulator


@pytest.fixture(scope="module")
def acl(upstream: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ACL for every Armv8.2-A CPU, as its package has it."""
    channel, target = tmp_path_factory.mktemp("acl") / "channel", tmp_path_factory.mktemp("unpacked")
    wanted = {"operators": "qlinear", "acl_variant": VARIANTS["acl_variant"][0]}
    dist.fill_channel(channel, upstream, ["arm-compute-library"], **wanted)
    (package,) = channel.glob("*/*.conda")
    archives.unpack_package(package, target)
    return target


@pytest.fixture(scope="module")
def googletest() -> Path:
    spec = bootstrap.BOOTSTRAP["googletest"]
    debs = debian.packages(spec["suite"], "arm64", spec["packages"])
    home = cached_dir("googletest", [str(deb) for deb in debs], lambda target: debian.unpack(debs, target))
    return home / "usr/src/googletest"


def configure(
    acl: Path, googletest: Path, compiler: Path, build: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """CMake's run for the tests, with its `options`."""
    emulated = [] if emulator.NATIVE else [f"-DCMAKE_CROSSCOMPILING_EMULATOR={';'.join(emulator.emulated([], None))}"]
    words = [
        *("cmake", "-G", "Ninja", "-S", ROOT / "src", "-B", build),
        *("-DACL_QLINEAR_BUILD_EXTENSION=OFF", "-DACL_QLINEAR_BUILD_TESTS=ON", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"),
        *(f"-DCMAKE_PREFIX_PATH={acl}", f"-DCMAKE_FIND_ROOT_PATH={acl}", f"-DGOOGLETEST_SOURCE={googletest}"),
        *(*emulated, *options),
    ]
    command = environment.activated_command(compiler, ["bash", "-c", 'exec "$0" "$@" $CMAKE_ARGS', *words])
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def run_ctest(acl: Path, googletest: Path, compiler: Path, build: Path, *options: str) -> str:
    """What ctest prints of the tests, built with CMake's `options`; they must pass."""
    done = configure(acl, googletest, compiler, build, *options)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    printed = ""
    for command in (
        ["cmake", "--build", build],
        ["ctest", "--test-dir", build, "--parallel", "2", "--output-on-failure"],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        printed = done.stdout
        print(printed[-6000:], done.stderr[-3000:])
        assert done.returncode == 0
    assert "100% tests passed, 0 tests failed" in printed
    return printed


def test_kernels_and_engine(acl: Path, googletest: Path, compiler: Path, tmp_path: Path) -> None:
    printed = run_ctest(acl, googletest, compiler, tmp_path / "build", "-DCMAKE_BUILD_TYPE=Release")
    assert emulator.NATIVE or not re.search("Skipped|Not Run", printed), "an emulated CPU was left out"


def test_memory_errors(acl: Path, googletest: Path, compiler: Path, tmp_path: Path) -> None:
    """The same under AddressSanitizer and UndefinedBehaviorSanitizer."""
    options = ["-DACL_QLINEAR_SANITIZE=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    run_ctest(acl, googletest, compiler, tmp_path / "build", *options)


@pytest.mark.parametrize(
    ("kernel", "symbol", "other"),
    [
        ("a64_gemm_s8_8x12", b"gemm_s8_8x12E", b"gemm_s8_9x12E"),
        ("sve_interleaved_s8s32_dot_8x3VL", b"s8s32_dot_8x3VLEPKa", b"s8s32_dot_8x3VLEPKh"),
    ],
    ids=["name", "arguments"],
)
def test_acl_with_another_kernel_is_refused(
    acl: Path, googletest: Path, compiler: Path, tmp_path: Path, kernel: str, symbol: bytes, other: bytes
) -> None:
    changed = tmp_path / "acl"
    shutil.copytree(acl, changed, symlinks=True)
    library = (changed / "lib/libarm_compute.so").resolve()
    content = library.read_bytes()
    assert symbol in content
    library.write_bytes(content.replace(symbol, other))
    done = configure(changed, googletest, compiler, tmp_path / "build")
    printed = " ".join(done.stderr.split())
    assert done.returncode == 1
    assert f"libarm_compute.so does not have arm_gemm::{kernel}(const int8_t*, const int8_t*, int32_t*," in printed
    assert "build with ACL 24.11 to 52.3, or give" in printed
