"""Correctness and cost of the layer on this machine, beside PyTorch's own.

`python -m acl_qlinear.bench` prints one line of JSON. Under qemu with the
project's counter plugin the cost is guest instructions and modelled Neoverse V1
cycles per call, which repeat exactly; elsewhere it is time.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import acl_qlinear
from acl_qlinear import _build, reference
from acl_qlinear.reference import Quantized

SHAPES = [(1, 768, 768), (8, 768, 768), (128, 768, 768)]
DTYPES = {"u8": torch.quint8, "s8": torch.qint8}
READ_COUNTERS = 0xAC1  # ci/guest_counters.c
CYCLES_UNIT = 24


def make_case(M: int, K: int, N: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.nn.Module]:
    """An input [M, K] and PyTorch's quantized linear layer for it, from a fixed seed."""
    torch.manual_seed(M * 1_000_003 + K * 1_009 + N)
    zero_point = 113 if dtype == torch.quint8 else -9
    x = torch.quantize_per_tensor(torch.randn(M, K), 0.0273, zero_point, dtype)
    weight = torch.quantize_per_tensor(torch.randn(N, K) / K**0.5, 0.0061 * (64 / K) ** 0.5, 0, torch.qint8)
    layer = torch.ao.nn.quantized.Linear(K, N)
    layer.set_weight_bias(weight, torch.randn(N))
    layer.scale, layer.zero_point = 0.0311, zero_point + 5
    return x, layer


def max_error(x: torch.Tensor, layer: torch.nn.Module, y: torch.Tensor) -> tuple[int, float]:
    """How far y is from `reference.linear`: the largest difference in LSB, and the share of elements that differ."""
    weight, bias = layer.weight(), layer.bias()
    expected = reference.linear(
        Quantized(x.int_repr().numpy(), x.q_scale(), x.q_zero_point()),
        Quantized(weight.int_repr().numpy(), weight.q_scale(), weight.q_zero_point()),
        None if bias is None else bias.detach().numpy(),
        (y.int_repr().numpy().dtype.type, layer.scale, layer.zero_point),
    )
    difference = np.abs(y.int_repr().numpy().astype(np.int64) - expected.astype(np.int64))
    return int(difference.max(initial=0)), float((difference > 0).mean()) if difference.size else 0.0


class Counters:
    """What a call costs, from the counter plugin: exact, so a few calls are enough."""

    measure = "modelled V1 cycles"

    def __init__(self, output: Path) -> None:
        self._output = output
        self._syscall = ctypes.CDLL(None).syscall

    def _region(self, call: Callable[[], object], count: int) -> tuple[int, int]:
        self._syscall(READ_COUNTERS)
        for _ in range(count):
            call()
        self._syscall(READ_COUNTERS)
        before, after = (tuple(map(int, line.split())) for line in self._output.read_text().splitlines()[-2:])
        return after[0] - before[0], after[1] - before[1]

    def cost(self, call: Callable[[], object]) -> dict[str, float]:
        """Instructions and modelled cycles of one call."""
        for _ in range(3):
            call()
        # The difference of two regions: what reading the counters costs is in both.
        few, many = self._region(call, 2), self._region(call, 6)
        return {
            "instructions": (many[0] - few[0]) / 4,
            "modelled V1 cycles": (many[1] - few[1]) / 4 / CYCLES_UNIT,
        }


class Clock:
    """What a call costs in seconds: the median over rounds."""

    measure = "seconds"

    def cost(self, call: Callable[[], object]) -> dict[str, float]:
        """Seconds of one call."""
        times = []
        for _ in range(30):
            started = time.perf_counter()
            for _ in range(10):
                call()
            times.append((time.perf_counter() - started) / 10)
        return {"seconds": statistics.median(times[5:])}


def run_case(meter: Counters | Clock, shape: tuple[int, int, int], name: str) -> dict:
    """Error of our layer, and the cost of ours and of PyTorch's, for one shape and dtype."""
    x, theirs = make_case(*shape, DTYPES[name])
    ours = acl_qlinear.Linear.from_torch(theirs)
    with torch.no_grad():
        lsb, share = max_error(x, theirs, ours(x))
        return {
            "shape": shape, "dtype": name, "max_error_lsb": lsb, "share_off": share,
            "acl": meter.cost(lambda: ours(x)), "torch": meter.cost(lambda: theirs(x)),
        }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m acl_qlinear.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--counters", type=Path, help="file that the counter plugin writes to")
    parser.add_argument("--check", action="store_true", help="only check that the results are right")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.check:
        for shape in SHAPES[:2]:
            for name, dtype in DTYPES.items():
                x, theirs = make_case(*shape, dtype)
                lsb, share = max_error(x, theirs, acl_qlinear.Linear.from_torch(theirs)(x))
                if lsb > 1 or share > 1e-4 * 10:
                    print(f"{name} {shape}: {lsb} LSB off, {share:.2%} of elements", file=sys.stderr)
                    return 1
        print(f"acl_qlinear {acl_qlinear.__version__} on {_build.MICROARCHITECTURE}: results are right")
        return 0
    meter = Counters(options.counters) if options.counters else Clock()
    report = {
        "versions": {
            "acl_qlinear": acl_qlinear.__version__, "acl": _build.ACL_VERSION, "torch": torch.__version__,
            "microarchitecture": _build.MICROARCHITECTURE,
        },
        "measure": meter.measure, "threads": torch.get_num_threads(),
        "cpu": os.environ.get("QEMU_CPU", "this machine"),
        "cases": [run_case(meter, shape, name) for shape in SHAPES for name in DTYPES],
    }  # fmt: skip
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
