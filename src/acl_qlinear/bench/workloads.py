# SPDX-License-Identifier: MIT
"""What is measured: shapes, kinds and thread counts, by name; each preset makes the cases of a report."""

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.ao.nn.quantized.dynamic as nnqd

import acl_qlinear
from acl_qlinear.conversion import quantized_weight

from .cases import ENGINES, KINDS, Case, Shape, make_case, max_error, our_error
from .meters import Counters, Meter
from .peers import PEERS, peers_of


@dataclass(frozen=True)
class Preset:
    """What one name on the command line stands for."""

    help: str
    measure: Callable[[Meter, "Preset", Case], dict[str, Any]]
    shapes: list[Shape] = field(default_factory=list)
    kinds: tuple[str, ...] = KINDS
    engines: tuple[str, ...] = ENGINES


def measured_engines(meter: Meter, preset: Preset, case: Case) -> list[str]:
    """The engines of a preset, without those that cannot do it, or take too long when emulated."""
    emulated = isinstance(meter, Counters)
    return [e for e in preset.engines if not (emulated and case.is_slow(e)) and case.runs(e)]


def side_by_side(meter: Meter, preset: Preset, case: Case) -> dict[str, Any]:
    """Each engine's cost, warmed up; the errors of ours and of peers."""
    error, share = our_error(case)
    errors = {f"{engine} error": max_error(case, call())[0] for engine, call in case.peers.items()}
    engines = measured_engines(meter, preset, case)
    # A shape's fp32 layer and input are the same in every kind, and so is what Counters count of them.
    known = meter.fp32_costs if isinstance(meter, Counters) else {}
    costs = meter.costs({e: case.call(e) for e in engines if e != "fp32" or case.shape not in known})
    costs["fp32"] = known.setdefault(case.shape, costs.get("fp32", {}))
    return {"max_error": error, "share_off": share, **errors, **costs}


def streamed(meter: Meter, preset: Preset, case: Case) -> dict[str, Any]:
    """64 different M, 1 to case's M, in random order, twice: each engine's cost in all.

    "alone" is the sum of what the same calls cost when each M is called again and again.
    Raises ValueError for a case of fewer than 64 rows.
    """
    if case.shape[0] < 64:
        raise ValueError(f"the stream's shape has M={case.shape[0]}, expected 64 or more: it has 64 different M")
    numbers = random.Random(0).sample(range(1, case.shape[0] + 1), 64)
    result: dict[str, Any] = {"M": numbers}
    for engine in measured_engines(meter, preset, case):
        calls = [case.rows(M).call(engine) for M in numbers]
        stream = meter.sequence(calls * 2)
        alone = [meter.sequence([call] * 2)[-1] for call in calls]
        result[engine] = {key: sum(cost[key] for cost in stream) for key in stream[0]}
        result[engine]["alone"] = 2 * sum(cost[meter.measure] for cost in alone)
    return result


def on_threads(meter: Meter, preset: Preset, case: Case) -> dict[str, Any]:
    """Each engine's cost on 1, 2, 4, 8, 16 and 32 threads, and on one again."""
    result: dict[str, Any] = {"threads": [1, 2, 4, 8, 16, 32, 1]}
    before = torch.get_num_threads()
    try:
        for engine in preset.engines:
            costs = []
            for count in result["threads"]:
                torch.set_num_threads(count)
                costs.append(meter.costs({engine: case.call(engine)})[engine])
            result[engine] = costs
    finally:
        torch.set_num_threads(before)
    return result


def resident(meter: Meter, preset: Preset, case: Case) -> dict[str, Any]:
    """MiB of memory that a bert-base encoder's linear layers take at most, dynamic, per channel, by engine.

    From before the first layer gets its weight, already quantized, until two batches of 8 rows
    have gone through; in a process of its own. Under emulation 3 of the 12 blocks, since PyTorch
    packs for minutes there.
    """
    blocks = 3 if isinstance(meter, Counters) else 12
    return {"blocks": blocks, **{engine: {"MiB": _peak_growth(engine, blocks)} for engine in preset.engines}}


def _peak_growth(engine: str, blocks: int) -> float:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(_grow(engine, blocks)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError(f"the process that measured {engine}'s memory died")
    return float(text)


def _grow(engine: str, blocks: int) -> float:
    # A forked child has one thread.
    torch.set_num_threads(1)
    block = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    fp32 = {(K, N): torch.nn.Linear(K, N) for K, N in set(block)}
    weights = {shape: quantized_weight(layer.weight, per_channel=True) for shape, layer in fp32.items()}
    before = _status("VmRSS")
    layers = []
    for K, N in block * blocks:
        # Each layer has memory of its own, which engines may keep.
        weight, bias = weights[K, N].clone(), fp32[K, N].bias.detach().clone()
        if engine == "acl":
            layers.append(acl_qlinear.DynamicLinear(weight, bias))
        else:
            layers.append(nnqd.Linear(K, N))
            layers[-1].set_weight_bias(weight, bias)
    inputs = {K: torch.randn(8, K) for K, _ in block}
    for _ in range(2):
        for layer in layers:
            layer(inputs[layer.in_features])
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    """A number of kB that Linux has of this process."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _encoder(M: int, hidden: int) -> list[Shape]:
    """The linear layers of a transformer's encoder block, for M tokens."""
    return [(M, hidden, hidden), (M, hidden, 4 * hidden), (M, 4 * hidden, hidden)]


# distilbert and roberta-base have bert-base's. The DLRM is that of the MLPerf benchmark, its first layers; the decoder
# is Llama 3.2 with 1 billion weights, for one token.
MODELS: dict[str, list[Shape]] = {
    "MiniLM": _encoder(32, 384),
    "bert-base": _encoder(128, 768),
    "bert-large": _encoder(128, 1024),
    "Whisper-tiny's encoder": _encoder(1500, 384),
    "Whisper-small's encoder": _encoder(1500, 768),
    "ViT-B": _encoder(197, 768),
    "DLRM": [(2048, 13, 512), (2048, 512, 256), (2048, 256, 128)],
    "a decoder of 10⁹ weights": [(1, 2048, 2048), (1, 2048, 512), (1, 2048, 8192), (1, 8192, 2048)],
}
_SIZES = (768, 1024, 2048, 4096)
PRESETS = {
    "smoke": Preset(
        "four shapes, all kinds", side_by_side, [(1, 64, 64), (1, 768, 768), (8, 768, 768), (128, 768, 768)]
    ),
    "paper": Preset(
        "M = 8 to 512, K and N = 768 to 4096, the grid on which PyTorch's ACL-direct was published",
        side_by_side, [(2**i, K, N) for i in range(3, 10) for K in _SIZES for N in _SIZES],
        ("u8 tensor", "s8 tensor"),
    ),
    # distilbert and roberta-base have bert-base's linear layers.
    "models": Preset(
        f"the layers of {', '.join(MODELS)}", side_by_side, list(dict.fromkeys(itertools.chain(*MODELS.values()))),
        ("u8 channel", "static channel", "dynamic channel", "dynamic-row channel"),
    ),
    "stream": Preset(
        "64 different M in 1 to 512, twice", streamed, [(512, 768, 768)], ("u8 tensor", "u8 channel"), ("acl", "torch"),
    ),
    # PyTorch's own layer takes its number of threads from the environment, when the process starts.
    "threads": Preset(
        "1 to 32 threads", on_threads, [(64, 1024, 4096), (128, 128, 128), (16, 384, 384)], ("u8 tensor",), ("acl",)
    ),
    "memory": Preset(
        "memory of a bert-base encoder", resident, [(8, 768, 768)], ("dynamic channel",), ("acl", "torch")
    ),
}  # fmt: skip


def measure_cases(meter: Meter, preset: Preset, cases: list[tuple[Shape, str]]) -> Iterator[dict[str, Any]]:
    """The results of all cases, one after the other."""

    def make(M: int, K: int, N: int, kind: str) -> Case:
        case = make_case(M, K, N, kind)
        return replace(case, peers=peers_of(case)) if set(preset.engines) >= set(PEERS) else case

    # Python makes code faster that has run some times.
    for kind in dict.fromkeys(kind for _, kind in cases):
        small = make(1, 64, 64, kind)
        for engine in measured_engines(meter, preset, small):
            call = small.call(engine)
            for _ in range(20):
                call()
    for (M, K, N), kind in cases:
        started = time.monotonic()
        with torch.no_grad():
            result = preset.measure(meter, preset, make(M, K, N, kind))
        yield {"shape": (M, K, N), "kind": kind, "took_seconds": round(time.monotonic() - started, 1), **result}
