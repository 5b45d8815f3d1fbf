# SPDX-License-Identifier: MIT
"""Tables of reports, 100 columns wide at most, and the comparison of two reports."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from .meters import CYCLES, LONGEST, OTHERS

Report = dict[str, Any]
# Two smmla of 256 bits, each of 64 multiply-accumulates, in a cycle: nothing is faster on a Neoverse V1.
_FLOOR_MACS_PER_CYCLE = 128


def name(shape: Sequence[int | str]) -> str:
    """M×K×N."""
    return "×".join(map(str, shape))


def unit(measure: str) -> tuple[float, str]:
    """What costs are multiplied with, and called, in tables."""
    return (1e-3, f"thousands of {measure}") if measure == CYCLES else (1e6, "µs")


def heading(report: Report) -> str:
    """What was measured, with versions."""
    versions = report["versions"]
    return (
        f"acl-qlinear {versions['acl_qlinear']} for {versions['microarchitecture']}, PyTorch {versions['torch']}, "
        f"{report['cpu']}, {report['threads']} thread(s)"
    )


def table(report: Report) -> Table:
    """A report's table."""
    grid = _peers if peers(report) else _grid
    return {"stream": _stream, "threads": _threads, "memory": _memory}.get(report["preset"], grid)(report)


def peers(report: Report) -> list[str]:
    """The engines that a report compares ours with, besides PyTorch's fp32; none but with --peers."""
    errors = {key for case in report["cases"] for key in case if key.endswith(" error")}
    return ["torch", *sorted(key.removesuffix(" error") for key in errors)] if errors else []


def _table(report: Report, caption: str, *headings: str) -> Table:
    result = Table(title=heading(report), caption=caption, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, min_width=90)
    for text in headings:
        result.add_column(text, justify="left" if text in ("M×K×N", "kind", "engine") else "right", no_wrap=True)
    return result


def _grid(report: Report) -> Table:
    measure = report["measure"]
    factor, what = unit(measure)
    engines = [engine for engine in ("acl", "torch", "fp32") if any(engine in case for case in report["cases"])]
    # Cycles are of one thread's: beside the least that a Neoverse V1 can take.
    floor = ["floor/acl"] if measure == CYCLES and report["threads"] == 1 else []
    ratios = [f"acl/{engine}" for engine in engines[1:]]
    result = _table(report, f"{what} per call", "M×K×N", "kind", "error", *engines, *ratios, *floor)
    for case in report["cases"]:
        costs = [case[engine][measure] if engine in case else None for engine in engines]
        cells = [f"{cost * factor:,.1f}" if cost else "–" for cost in costs]
        shares = [f"{costs[0] / cost:.4f}" if cost else "–" for cost in costs[1:]]
        if floor:
            shares.append(f"{math.prod(case['shape']) / _FLOOR_MACS_PER_CYCLE / costs[0]:.3f}")
        result.add_row(name(case["shape"]), case["kind"], f"{case['max_error']:.2g}", *cells, *shares)
    return result


def _peers(report: Report) -> Table:
    measure = report["measure"]
    factor, what = unit(measure)
    engines = ["acl", *peers(report)]
    headings = ("M×K×N", "kind", *engines, "acl/least", "error", "theirs")
    result = _table(report, f"{what} per call", *headings)
    for case in report["cases"]:
        costs = {engine: case[engine][measure] for engine in engines if engine in case}
        cells = [f"{costs[engine] * factor:,.1f}" if engine in costs else "–" for engine in engines]
        least = min((cost for engine, cost in costs.items() if engine != "acl"), default=None)
        cells.append(f"{costs['acl'] / least:.3f}" if least else "–")
        errors = [case[f"{engine} error"] for engine in engines if f"{engine} error" in case]
        cells += [f"{case['max_error']:.2g}", f"{max(errors):.2g}" if errors else "–"]
        result.add_row(name(case["shape"]), case["kind"], *cells)
    return result


def _stream(report: Report) -> Table:
    measure = report["measure"]
    factor, what = unit(measure)
    result = _table(report, f"{what} in all", "M×K×N", "kind", "engine", "stream", "each M alone", "stream/alone")
    for case in report["cases"]:
        for engine in ("acl", "torch"):
            if engine in case:
                stream, alone = case[engine][measure], case[engine]["alone"]
                shape = name(("1…" + str(case["shape"][0]), *case["shape"][1:]))
                cells = (f"{stream * factor:,.0f}", f"{alone * factor:,.0f}", f"{stream / alone:.3f}")
                result.add_row(shape, case["kind"], engine, *cells)
    return result


def _threads(report: Report) -> Table:
    measure = LONGEST if report["measure"] == CYCLES else report["measure"]
    factor, what = unit(report["measure"])
    headings = ("M×K×N", "kind", "threads", "longest thread", "of its share", "others' instructions")
    result = _table(report, f"{what} per call", *headings)
    for case in report["cases"]:
        for cost, threads in zip(case["acl"], case["threads"], strict=True):
            ratio = cost[measure] * threads / case["acl"][0][measure]
            others = f"{cost[OTHERS]:,.0f}" if OTHERS in cost else "–"
            cells = (str(threads), f"{cost[measure] * factor:,.1f}", f"{ratio:.3f}", others)
            result.add_row(name(case["shape"]), case["kind"], *cells)
    return result


def _memory(report: Report) -> Table:
    layers = 6 * report["cases"][0]["blocks"]
    result = _table(
        report, f"MiB at most, {layers} linear layers of a bert-base encoder", "kind", "acl", "torch", "acl/torch"
    )
    for case in report["cases"]:
        acl, theirs = case["acl"]["MiB"], case["torch"]["MiB"]
        result.add_row(case["kind"], f"{acl:,.0f}", f"{theirs:,.0f}", f"{acl / theirs:.3f}")
    return result


def geometric_means(report: Report) -> dict[str, float]:
    """For each kind, the geometric mean over all shapes of our cost over PyTorch's."""
    ratios: dict[str, list[float]] = {}
    for case in report["cases"]:
        if "torch" in case:
            ratio = case["acl"][report["measure"]] / case["torch"][report["measure"]]
            ratios.setdefault(case["kind"], []).append(ratio)
    return {kind: statistics.geometric_mean(values) for kind, values in ratios.items()}


def merge(parts: list[Report]) -> Report:
    """The report of a whole grid, from those of its parts 1/N to N/N, which other nodes may have measured.

    Raises ValueError for parts that are missing, there twice, or of something else than the others.
    """
    first, *others = parts
    if any("part" not in part for part in parts):
        raise ValueError("a report is of no part, expected those that --part wrote")
    for other in others:
        for key in ("preset", "measure", "threads", "cpu"):
            if other[key] != first[key]:
                raise ValueError(f"the parts' {key} are {first[key]} and {other[key]}, expected the same")
        for key in first["versions"].keys() - {"kernel"}:
            if other["versions"][key] != first["versions"][key]:
                versions = first["versions"][key], other["versions"][key]
                raise ValueError(f"the parts' {key} are {versions[0]} and {versions[1]}, expected the same")
    count = first["part"][1]
    numbers = sorted(part["part"][0] for part in parts)
    if numbers != list(range(1, count + 1)) or any(part["part"][1] != count for part in parts):
        raise ValueError(f"the parts are {numbers} of {count}, expected each once: measure those that are missing")
    cases: list[Any] = [None] * sum(len(part["cases"]) for part in parts)
    for part in parts:
        cases[part["part"][0] - 1 :: count] = part["cases"]
    nodes = {f"{number}/{count}": part["node"] for part in parts for number in part["part"][:1]}
    kept = {key: value for key, value in first.items() if key not in ("part", "node")}
    return {**kept, "nodes": nodes, "cases": cases}


def changes(before: Report, after: Report) -> list[tuple[str, str, float, float]]:
    """Shape, kind, and our cost before and after, of the cases that both reports have.

    Raises ValueError for reports that cannot be compared: of another measure, CPU or number of
    threads, or of presets other than smoke, paper and models.
    """
    for key in ("measure", "cpu", "threads"):
        if before[key] != after[key]:
            raise ValueError(f"the reports' {key} are {before[key]} and {after[key]}, expected the same")
    if any("max_error" not in case for report in (before, after) for case in report["cases"]):
        raise ValueError(f"the reports are of presets {before['preset']} and {after['preset']}, expected grids")
    measure = after["measure"]
    old = {(tuple(c["shape"]), c["kind"]): c["acl"][measure] for c in before["cases"]}
    new = {(tuple(c["shape"]), c["kind"]): c["acl"][measure] for c in after["cases"]}
    return [(name(key[0]), key[1], old[key], new[key]) for key in new if key in old]


def compare(before: Report, after: Report) -> Table:
    """The table of `changes`."""
    result = Table(title=f"acl: {after['measure']} per call", box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    for text in ("M×K×N", "kind", "before", "after", "after/before"):
        result.add_column(text, justify="left" if text in ("M×K×N", "kind") else "right", no_wrap=True)
    for shape, kind, old, new in changes(before, after):
        result.add_row(shape, kind, f"{old:,.6g}", f"{new:,.6g}", f"{new / old:.3f}")
    return result
