"""What a linear layer costs on this machine: ours, PyTorch's own int8 one, and fp32, side by side.

`python -m acl_qlinear.bench` runs the engines on the same inputs in one process, taking turns,
and prints a table. On AArch64 the measure is time. Under qemu with the project's counter plugin
(`--counters`, see ci/guest_counters.c) it is guest instructions and modelled Neoverse V1 cycles,
which repeat exactly; they are no times.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.ao.nn.quantized as nnq
import torch.ao.nn.quantized.dynamic as nnqd
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import acl_qlinear
from acl_qlinear import _build, reference
from acl_qlinear.reference import Quantized

Shape = tuple[int, int, int]
KINDS = (
    "u8 tensor", "s8 tensor", "u8 channel", "s8 channel", "dynamic tensor", "dynamic channel",
)  # fmt: skip
READ_COUNTERS = 0xAC1  # ci/guest_counters.c
CYCLES_UNIT = 24
CYCLES = "modelled V1 cycles"
# PyTorch's reference kernel for per-channel weights takes seconds a call when emulated.
LARGEST_SLOW_CALL = 8 * 768 * 768


def _encoder(hidden: int, intermediate: int) -> list[Shape]:
    """The linear layers of an encoder block, for sequences of 128 tokens."""
    return [(128, hidden, hidden), (128, hidden, intermediate), (128, intermediate, hidden)]


_SMOKE_SHAPES: list[Shape] = [(1, 64, 64), (1, 768, 768), (8, 768, 768), (128, 768, 768)]
_PAPER_SHAPES: list[Shape] = [
    (2**i, K, N) for i in range(3, 10) for K in (768, 1024, 2048, 4096) for N in (768, 1024, 2048, 4096)
]
# Shapes and kinds. bert-base, distilbert and roberta-base have the same linear layers.
PRESETS: dict[str, tuple[list[Shape], tuple[str, ...]]] = {
    "smoke": (_SMOKE_SHAPES, KINDS),
    "paper": (_PAPER_SHAPES, ("u8 tensor", "s8 tensor")),
    "models": (_encoder(768, 3072) + _encoder(1024, 4096), KINDS),
}


@dataclass(frozen=True)
class Case:
    """One shape and kind: the input, and a layer per engine that can take it."""

    shape: Shape
    kind: str
    x: torch.Tensor
    layers: dict[str, torch.nn.Module]
    fp32_x: torch.Tensor

    def call(self, engine: str) -> Callable[[], torch.Tensor]:
        layer, x = self.layers[engine], self.fp32_x if engine == "fp32" else self.x
        return lambda: layer(x)


def make_case(M: int, K: int, N: int, kind: str) -> Case:
    """The engines "acl", "torch" and "fp32" for one shape and kind, from a fixed seed."""
    torch.manual_seed(M * 1_000_003 + K * 1_009 + N)
    activations, weights = kind.split()
    fp32 = torch.nn.Linear(K, N)
    weight = acl_qlinear.conversion.quantized_weight(fp32, per_channel=weights == "channel")
    bias = fp32.bias.detach()
    x = torch.randn(M, K)
    if activations == "dynamic":
        dynamic = nnqd.Linear(K, N)
        dynamic.set_weight_bias(weight, bias)
        layers = {"acl": acl_qlinear.DynamicLinear.from_torch(dynamic), "torch": dynamic, "fp32": fp32}
        return Case((M, K, N), kind, x, layers, x)
    zero_point, dtype = (113, torch.quint8) if activations == "u8" else (-9, torch.qint8)
    static = nnq.Linear(K, N)
    static.set_weight_bias(weight, bias)
    static.scale, static.zero_point = 0.0211, zero_point + 5
    quantized = torch.quantize_per_tensor(x, 0.0273, zero_point, dtype)
    layers = {"acl": acl_qlinear.Linear.from_torch(static), "torch": static, "fp32": fp32}
    return Case((M, K, N), kind, quantized, layers, x)


def max_error(case: Case) -> tuple[float, float]:
    """How far our layer is from `reference.linear` in the first rows, and the share of elements that are.

    Static: in LSB of the output. Dynamic: relative to the largest output, where float results
    count as different from 10⁻⁵ on.
    """
    rows = slice(0, 16)
    layer, theirs = case.layers["acl"], case.layers["torch"]
    weight, bias = theirs.weight(), theirs.bias().detach().numpy()
    per_channel = weight.qscheme() == torch.per_channel_affine
    scale = weight.q_per_channel_scales().numpy() if per_channel else weight.q_scale()
    quantized_weight = Quantized(weight.int_repr().numpy(), scale, 0)
    y = layer(case.x)[rows]
    if case.x.is_quantized:
        x = Quantized(case.x.int_repr().numpy()[rows], case.x.q_scale(), case.x.q_zero_point())
        output = (x.values.dtype.type, theirs.scale, theirs.zero_point)
        expected = reference.linear(x, quantized_weight, bias, output)
        difference = np.abs(y.int_repr().numpy().astype(np.int64) - expected.astype(np.int64))
    else:
        values = case.x.numpy()
        steps = 127 if layer.reduce_range else 255
        low, high = min(values.min(), 0.0), max(values.max(), 0.0)
        x_scale = (float(high) - float(low)) / steps
        x = reference.quantize(values[rows], x_scale, round(-float(low) / x_scale) - 128)
        expected = reference.linear(x, quantized_weight, bias)
        difference = np.abs(y.numpy() - expected) / np.abs(expected).max()
        difference[difference < 1e-5] = 0
    return float(difference.max()), float((difference > 0).mean())


class Counters:
    """What a call costs, from the counter plugin: exact, so a few calls are enough."""

    measure = CYCLES

    def __init__(self, output: Path) -> None:
        self._output = output
        self._syscall = ctypes.CDLL(None).syscall

    def _region(self, call: Callable[[], object], count: int) -> np.ndarray:
        """Instructions and cycles of every thread, [threads, 2]."""
        self._syscall(READ_COUNTERS)
        for _ in range(count):
            call()
        self._syscall(READ_COUNTERS)
        before, after = (np.array(line.split(), np.int64) for line in self._output.read_text().splitlines()[-2:])
        before = np.pad(before, (0, len(after) - len(before)))
        return (after - before).reshape(-1, 2)

    def cost(self, call: Callable[[], object]) -> dict[str, float]:
        """Instructions and modelled cycles of one call, of all threads and of the longest."""
        for _ in range(3):
            call()
        # A collection of garbage would cost as much as a hundred calls.
        gc.collect()
        gc.disable()
        try:
            # The difference of two regions: what reading the counters costs is in both.
            few, many = self._region(call, 1), self._region(call, 4)
        finally:
            gc.enable()
        per_thread = (many - np.pad(few, ((0, len(many) - len(few)), (0, 0)))) / 3 / (1, CYCLES_UNIT)
        return {
            "instructions": per_thread[:, 0].sum(), CYCLES: per_thread[:, 1].sum(),
            "longest thread, " + CYCLES: per_thread[:, 1].max(),
        }  # fmt: skip

    def costs(self, calls: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
        """`cost` of each engine."""
        return {name: self.cost(call) for name, call in calls.items()}


class Clock:
    """What a call costs in seconds: medians over rounds in which the engines take turns."""

    measure = "seconds"
    warm_up, rounds = 3, 15

    def costs(self, calls: dict[str, Callable[[], object]]) -> dict[str, dict[str, float]]:
        """Seconds of one call of each engine, and their spread: the interquartile range."""
        counts: dict[str, int] = {}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for name, call in calls.items():
            for _ in range(self.warm_up):
                started = time.perf_counter()
                call()
                elapsed = time.perf_counter() - started
            # A round of an engine lasts a millisecond or more.
            counts[name] = max(1, math.ceil(1e-3 / elapsed))
        for _ in range(self.rounds):
            for name, call in calls.items():
                started = time.perf_counter()
                for _ in range(counts[name]):
                    call()
                times[name].append((time.perf_counter() - started) / counts[name])
        quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
        return {name: {"seconds": q[1], "spread": q[2] - q[0]} for name, q in quartiles.items()}

    def cost(self, call: Callable[[], object]) -> dict[str, float]:
        """Seconds of one call."""
        return self.costs({"": call})[""]


def is_slow(case: Case, engine: str) -> bool:
    """Whether an engine is left out under emulation."""
    M, K, N = case.shape
    return engine == "torch" and case.kind.endswith("channel") and M * K * N > LARGEST_SLOW_CALL


def run_case(meter: Counters | Clock, case: Case) -> dict[str, Any]:
    """Error of our layer, and what each engine costs; an engine is None where it was left out."""
    with torch.no_grad():
        error, share = max_error(case)
        left_out = [e for e in case.layers if isinstance(meter, Counters) and is_slow(case, e)]
        costs = meter.costs({e: case.call(e) for e in case.layers if e not in left_out})
        return {
            "shape": case.shape, "kind": case.kind, "max_error": error, "share_off": share,
            **costs, **dict.fromkeys(left_out),
        }  # fmt: skip


def run(meter: Counters | Clock, cases: list[tuple[Shape, str]]) -> dict[str, Any]:
    """All cases, with progress on stderr; what --json writes."""
    # A thread that refreshes the progress bar would be counted with the calls.
    steps = track(cases, "measuring", console=Console(stderr=True), transient=True, auto_refresh=False)
    results = [run_case(meter, make_case(M, K, N, kind)) for (M, K, N), kind in steps]
    return {
        "versions": {
            "acl_qlinear": acl_qlinear.__version__, "acl": _build.ACL_VERSION, "torch": torch.__version__,
            "python": platform.python_version(), "microarchitecture": _build.MICROARCHITECTURE,
        },
        "measure": meter.measure, "threads": torch.get_num_threads(),
        "cpu": os.environ.get("QEMU_CPU", "this machine"), "command": sys.argv, "cases": results,
    }  # fmt: skip


def table(report: dict[str, Any]) -> Table:
    """A report, 100 columns wide at most."""
    measure, versions = report["measure"], report["versions"]
    factor, unit = (1e-3, f"thousands of {measure}") if measure == CYCLES else (1e6, "µs")
    result = Table(
        title=f"acl-qlinear {versions['acl_qlinear']} for {versions['microarchitecture']}, PyTorch "
        f"{versions['torch']}, {report['cpu']}, {report['threads']} thread(s)",
        caption=f"{unit} per call",
        box=box.SIMPLE_HEAD, padding=0, pad_edge=False, min_width=90,
    )  # fmt: skip
    for heading in ("M×K×N", "kind"):
        result.add_column(heading, no_wrap=True)
    for heading in ("max error", "acl", "torch", "fp32", "acl/torch", "acl/fp32"):
        result.add_column(heading, justify="right", no_wrap=True)
    for case in report["cases"]:
        costs = {engine: case[engine] and case[engine][measure] for engine in ("acl", "torch", "fp32")}
        cells = [f"{cost * factor:,.1f}" if cost else "–" for cost in costs.values()]
        ratios = [f"{costs['acl'] / costs[engine]:.4f}" if costs[engine] else "–" for engine in ("torch", "fp32")]
        result.add_row(_name(case["shape"]), case["kind"], f"{case['max_error']:.2g}", *cells, *ratios)
    return result


def geometric_means(report: dict[str, Any]) -> dict[str, float]:
    """For each kind, the geometric mean over all shapes of our cost over PyTorch's."""
    ratios: dict[str, list[float]] = {}
    for case in report["cases"]:
        if case["torch"]:
            ratio = case["acl"][report["measure"]] / case["torch"][report["measure"]]
            ratios.setdefault(case["kind"], []).append(ratio)
    return {kind: statistics.geometric_mean(values) for kind, values in ratios.items()}


def _name(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def compare(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """What our layer's cost has become, for the cases that both reports have.

    Raises ValueError for reports of different measures or thread counts.
    """
    if before["measure"] != after["measure"] or before["threads"] != after["threads"]:
        raise ValueError(
            f"the reports are of {before['measure']} on {before['threads']} thread(s) and of {after['measure']} on "
            f"{after['threads']}, expected the same"
        )
    old = {(tuple(c["shape"]), c["kind"]): c["acl"][before["measure"]] for c in before["cases"]}
    result = Table(title=f"acl: {after['measure']} per call", box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    for heading in ("M×K×N", "kind", "before", "after", "after/before"):
        result.add_column(heading, justify="left" if heading in ("M×K×N", "kind") else "right", no_wrap=True)
    for case in after["cases"]:
        key, cost = (tuple(case["shape"]), case["kind"]), case["acl"][after["measure"]]
        if key in old:
            result.add_row(_name(key[0]), key[1], f"{old[key]:,.6g}", f"{cost:,.6g}", f"{cost / old[key]:.3f}")
    return result


def check() -> int:
    """Whether results are right on this CPU, for a few cases; the exit status."""
    for shape in _SMOKE_SHAPES[:3]:
        for kind in KINDS:
            error, share = max_error(make_case(*shape, kind))
            # One element of 64 or 768 may be 1 LSB off; float results may not be off at all.
            if error > (1 if "dynamic" not in kind else 0) or share > 1 / 64:
                print(f"{kind} {shape}: {error} off, {share:.2%} of elements", file=sys.stderr)
                return 1
    print(f"acl_qlinear {acl_qlinear.__version__} on {_build.MICROARCHITECTURE}: results are right")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m acl_qlinear.bench", description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help="which shapes and kinds (default: smoke)")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    parser.add_argument("--largest-m", type=int, default=512, metavar="M", help="leave out shapes with more rows")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's intra-op threads (default: 1)")
    parser.add_argument("--counters", type=Path, help="file that the counter plugin writes to")
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--check", action="store_true", help="only check that the results are right")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="print what changed from A to B"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=100, highlight=False)
    if options.check:
        return check()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        console.print(compare(before, after))
        return 0
    shapes, kinds = PRESETS[options.preset]
    cases = [
        (shape, kind) for shape in shapes if shape[0] <= options.largest_m for kind in kinds
        if not options.kind or kind in options.kind
    ]  # fmt: skip
    report = run(Counters(options.counters) if options.counters else Clock(), cases)
    console.print(table(report))
    if len(shapes) > 1:
        means = ", ".join(f"{kind} {mean:.3f}" for kind, mean in geometric_means(report).items())
        console.print(f"geometric means of acl/torch: {means}")
    if options.json:
        partial = options.json.with_name(options.json.name + ".partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.rename(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
