# SPDX-License-Identifier: MIT
"""The two ways to measure a call: counts under emulation, time on AArch64."""

import ctypes
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

Call = Callable[[], object]
Cost = dict[str, float]
INSTRUCTIONS, CYCLES, SECONDS = "instructions", "modelled V1 cycles", "seconds"
# By a model that takes fewer instructions for vector operations: see ci/guest_counters.c.
CYCLES_2 = f"{CYCLES}, model 2"
# Of the thread that has most: the critical path.
LONGEST = f"longest thread, {CYCLES}"
# Of all threads but the one that calls.
OTHERS = f"other threads, {INSTRUCTIONS}"
_READ_COUNTERS = 0xAC1  # ci/guest_counters.c
_CYCLES_UNIT = 24


class Counters:
    """What a call costs, from the counter plugin: exact, so a few calls are enough."""

    measure = CYCLES
    warm_up = 2

    def __init__(self, output: Path) -> None:
        """output: the file that the plugin writes to."""
        self._output = output
        self._syscall = ctypes.CDLL(None).syscall
        self._own_cost: np.ndarray | None = None
        self.fp32_costs: dict[tuple[int, int, int], Cost] = {}

    def _counts(self, calls: Sequence[Call]) -> np.ndarray:
        """Instructions, cycles, and cycles of model 2, that each thread adds in each call, [calls, threads, 3]."""
        # A collection of garbage would cost as much as a hundred calls.
        with _no_garbage_collection():
            self._syscall(_READ_COUNTERS)
            for call in calls:
                call()
                self._syscall(_READ_COUNTERS)
        lines = self._output.read_text().splitlines()[-len(calls) - 1 :]
        rows = [np.array(line.split(), np.int64).reshape(-1, 3) for line in lines]
        threads = len(rows[-1])
        return np.diff([np.pad(row, ((0, threads - len(row)), (0, 0))) for row in rows], axis=0)

    def sequence(self, calls: Sequence[Call]) -> list[Cost]:
        """What each of the calls costs, made one after the other without warming up."""
        if self._own_cost is None:
            # Of reading the counters, and of calling a function; the first ones cost more.
            self._own_cost = self._counts([_nothing] * 8)[4:, 0].mean(axis=0)
        counts = self._counts(calls).astype(float)
        counts[:, 0] -= self._own_cost
        return [
            {
                INSTRUCTIONS: call[:, 0].sum(),
                CYCLES: call[:, 1].sum() / _CYCLES_UNIT,
                CYCLES_2: call[:, 2].sum() / _CYCLES_UNIT,
                LONGEST: call[:, 1].max() / _CYCLES_UNIT,
                OTHERS: call[1:, 0].sum(),
            }
            for call in counts
        ]

    def costs(self, calls: dict[str, Call]) -> dict[str, Cost]:
        """What one call of each engine costs, warmed up: the mean of 2."""
        result = {}
        for name, call in calls.items():
            measured = self.sequence([call] * (self.warm_up + 2))[self.warm_up :]
            result[name] = {key: statistics.mean(cost[key] for cost in measured) for key in measured[0]}
        return result


class Clock:
    """What a call costs in seconds: medians over rounds in which the engines take turns."""

    measure = SECONDS
    warm_up, rounds = 3, 15

    def sequence(self, calls: Sequence[Call]) -> list[Cost]:
        """What each of the calls costs, made one after the other without warming up."""
        with _no_garbage_collection():
            return [{SECONDS: _seconds(call, 1)} for call in calls]

    def costs(self, calls: dict[str, Call]) -> dict[str, Cost]:
        """Seconds of one call of each engine, and their spread: the interquartile range."""
        times: dict[str, list[float]] = {name: [] for name in calls}
        # A round of an engine lasts a millisecond or more.
        counts = {
            name: max(1, math.ceil(1e-3 / min(_seconds(call, 1) for _ in range(self.warm_up))))
            for name, call in calls.items()
        }
        for _ in range(self.rounds):
            for name, call in calls.items():
                times[name].append(_seconds(call, counts[name]))
        quartiles = {name: statistics.quantiles(values, n=4) for name, values in times.items()}
        return {name: {SECONDS: q[1], "spread": q[2] - q[0]} for name, q in quartiles.items()}


Meter = Counters | Clock


def pin(threads: int) -> list[int]:
    """Keeps this process, and threads that it starts later, on `threads` of its processors; returns which."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)
    return cores


def _nothing() -> None:
    pass


def _seconds(call: Call, count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) / count


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
