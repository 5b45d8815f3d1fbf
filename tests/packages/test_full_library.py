# SPDX-License-Identifier: MIT
"""All of ACL: built by ci/build.sh --operators full, installed, and used for more than int8 linear layers."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aclpkg.base import environment
from aclpkg.base.paths import ROOT
from aclpkg.build import dist
from aclpkg.inputs import emulator

from ..conftest import MICROARCHITECTURES

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=MICROARCHITECTURES)
def results(
    request: pytest.FixtureRequest,
    full_channel: Path,
    build_by_pkg_config: Callable[[Path, Path], Path],
    run_in: Run,
    tmp_path: Path,
) -> Callable[..., np.ndarray]:
    """results(file, dtype, shape…): what tests/packages/full_library.cpp wrote."""
    home, cpu = tmp_path / "prefix", emulator.CPUS[request.param][0]
    channels = [full_channel.as_uri(), *dist.upstream_of_built_channel()]
    records = environment.create(home, channels, ["arm-compute-library * *_full_*"], cpu.replace("-", "_"))
    assert any(f"{request.param}_full_" in str(record.build) for record in records)
    program = build_by_pkg_config(ROOT / "tests/packages/full_library.cpp", home)
    done = run_in(home, [program.name, tmp_path], cpu)
    assert done.returncode == 0 and done.stdout == "done\n", done.stdout + done.stderr

    def read(name: str, dtype: type, *shape: int) -> np.ndarray:
        return np.fromfile(tmp_path / name, dtype).reshape(shape).astype(np.float64)

    return read


def convolve(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """2-D convolution (N, H, W, C) * (O, 3, 3, C), padded by one."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = image.shape
    return sum(  # type: ignore[return-value]
        np.einsum("nhwc,oc->nhwo", padded[:, y : y + height, x : x + width], weights[:, y, x])
        for y in range(3)
        for x in range(3)
    )


def test_results_are_numpys(results: Callable[..., np.ndarray]) -> None:
    for name, dtype, tolerance in (("gemm_fp32", np.float32, 1e-5), ("gemm_fp16", np.float16, 2e-2)):
        a, b = results(f"{name}.a", dtype, 17, 65), results(f"{name}.b", dtype, 65, 33)
        assert np.abs(a).max() > 1
        np.testing.assert_allclose(results(f"{name}.out", dtype, 17, 33), a @ b, tolerance, tolerance * 8)

    shapes = (2, 9, 12, 5), (8, 3, 3, 5), (8,), (2, 9, 12, 8)
    image, weights, bias, out = (
        results(f"convolution_fp32.{part}", np.float32, *shape)
        for part, shape in zip(("in", "weights", "bias", "out"), shapes, strict=True)
    )
    np.testing.assert_allclose(out, convolve(image, weights) + bias, 1e-4, 1e-4)

    types = np.uint8, np.uint8, np.int32, np.uint8
    image, weights, bias, out = (
        results(f"convolution_u8.{part}", dtype, *shape)
        for part, dtype, shape in zip(("in", "weights", "bias", "out"), types, shapes, strict=True)
    )
    exact = (convolve(image - 100, weights - 120) + bias) * 0.02 * 0.01
    expected = np.clip(np.rint(exact / 0.05) + 128, 0, 255)
    assert np.abs(out - expected).max() <= 1 and len(np.unique(out)) > 20

    image, out = results("softmax.in", np.float32, 7, 100), results("softmax.out", np.float32, 7, 100)
    exponential = np.exp(image - image.max(1, keepdims=True))
    np.testing.assert_allclose(out, exponential / exponential.sum(1, keepdims=True), 1e-4, 1e-7)

    a, b, out = (results(f"addition.{part}", np.uint8, 7, 100) for part in ("a", "b", "out"))
    expected = np.clip(np.rint(((a - 100) * 0.02 + (b - 120) * 0.01) / 0.03) + 110, 0, 255)
    assert np.abs(out - expected).max() <= 1 and len(np.unique(out)) > 20
