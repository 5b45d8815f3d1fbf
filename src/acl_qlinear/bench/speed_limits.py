# SPDX-License-Identifier: MIT
"""What the packages promise of their speed; the recipe's test and ci/bench.sh hold them to it.

A promise may be less than what we aim for: the target.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .meters import CYCLES, LONGEST, OTHERS
from .report import Report, geometric_means, name, peers

# Modelled cycles of ours over PyTorch 2.9's, at most, on one thread of a Neoverse V1, in the preset "smoke".
_OF_TORCH: dict[tuple[int, int, int], dict[str, float]] = {
    (1, 64, 64): {
        "tensor": 0.20,
        "channel": 0.10,
        "static channel": 0.10,
        "dynamic tensor": 0.20,
        "dynamic channel": 0.10,
    },
    (1, 768, 768): {
        "tensor": 0.30,
        "channel": 0.004,
        "static channel": 0.004,
        "dynamic tensor": 0.22,
        "dynamic channel": 0.004,
    },
    (8, 768, 768): {
        "tensor": 0.46,
        "channel": 0.0065,
        "static channel": 0.0067,
        "dynamic tensor": 0.46,
        "dynamic channel": 0.0067,
    },
    (128, 768, 768): {"tensor": 0.88, "dynamic tensor": 0.85},
}
# Time of ours over PyTorch's, on any AArch64: not measured yet, so no more than that ours is not slower, but for noise.
_OF_OTHERS_TIME = 1.1
# Multiply-accumulates of a thread, from which on what all of a call's threads do twice counts for little.
_LARGE_SHARE = 2**24


@dataclass(frozen=True)
class Result:
    """One promise, and how it was kept."""

    what: str
    value: float
    at_most: float
    target: float

    @property
    def kept(self) -> bool:
        return bool(self.value <= self.at_most)


def _weights(kind: str) -> str:
    return kind if kind.startswith(("dynamic", "static")) else kind.split()[1]


def _smoke(report: Report) -> Iterator[Result]:
    measure = report["measure"]
    for case in report["cases"]:
        kind, shape = _weights(case["kind"]), tuple(case["shape"])
        label = f"{name(shape)} {case['kind']}"
        # Of other shapes, which --shape may name, nothing is promised.
        if "torch" in case and shape in _OF_TORCH:
            bound = _OF_TORCH[shape][kind] if measure == CYCLES else _OF_OTHERS_TIME
            yield Result(f"{label}: of PyTorch", case["acl"][measure] / case["torch"][measure], bound, bound)
    eight = [case for case in report["cases"] if tuple(case["shape"]) == (8, 768, 768)]
    if eight and measure == CYCLES:
        ratio = max(case["acl"][measure] / case["fp32"][measure] for case in eight)
        yield Result("8×768×768, the int8 kind that costs most: of fp32", ratio, 0.15, 0.12)


def _peers(report: Report) -> Iterator[Result]:
    measure = report["measure"]
    bound = 1.0 if measure == CYCLES else _OF_OTHERS_TIME
    for case in report["cases"]:
        for engine in peers(report):
            if engine in case:
                label = f"{name(case['shape'])} {case['kind']}: of {engine}"
                yield Result(label, case["acl"][measure] / case[engine][measure], bound, bound)


def _paper(report: Report) -> Iterator[Result]:
    small = {**report, "cases": [case for case in report["cases"] if case["shape"][0] <= 128]}
    for kind, mean in geometric_means(small).items():
        yield Result(f"paper grid to M=128, {kind}: geometric mean, of PyTorch", mean, 0.84, 0.75)


def _stream(report: Report) -> Iterator[Result]:
    for case in report["cases"]:
        acl = case["acl"]
        yield Result(f"stream, {case['kind']}: of each M alone", acl[report["measure"]] / acl["alone"], 1.15, 1.15)


def _threads(report: Report) -> Iterator[Result]:
    for case in report["cases"]:
        label = f"{name(case['shape'])} {case['kind']}"
        first, *more, last = zip(case["threads"], case["acl"], strict=True)
        measure = LONGEST if report["measure"] == CYCLES else report["measure"]
        fewer = first[1][measure]
        for threads, cost in more:
            if math.prod(case["shape"]) / threads >= _LARGE_SHARE:
                ratio = cost[measure] * threads / first[1][measure]
                yield Result(f"{label}, {threads} threads: longest, of its share", ratio, 1.25, 1.25)
            yield Result(f"{label}, {threads} threads: of fewer", cost[measure] / fewer, 1.05, 1.0)
            fewer = cost[measure]
        if OTHERS in last[1]:
            yield Result(f"{label}, 1 thread again: others' instructions", last[1][OTHERS], 0, 0)


def _memory(report: Report) -> Iterator[Result]:
    for case in report["cases"]:
        ratio = case["acl"]["MiB"] / case["torch"]["MiB"]
        yield Result(f"bert-base encoder, {case['kind']}: MiB, of PyTorch", ratio, 0.75, 0.75)


_CHECKS: dict[str, Callable[[Report], Iterator[Result]]] = {
    "smoke": _smoke, "paper": _paper, "stream": _stream, "threads": _threads, "memory": _memory,
}  # fmt: skip


def results(report: Report) -> list[Result]:
    """The promises about a report's preset, and about other engines in it; none for "models" alone."""
    return [*_CHECKS.get(report["preset"], lambda report: iter(()))(report), *_peers(report)]
