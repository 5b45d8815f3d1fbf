# SPDX-License-Identifier: MIT
"""The picture of a report."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from .meters import CYCLES, LONGEST
from .report import Report, heading, name, unit

_COLOURS = {"acl": "tab:blue", "torch": "tab:orange", "fp32": "tab:green"}


def is_possible() -> bool:
    """Whether matplotlib is there, which pictures need and nothing else does."""
    return importlib.util.find_spec("matplotlib") is not None


def save(report: Report, path: Path) -> None:
    """Writes the picture as PNG: ratios and costs over M, or what the preset is about."""
    from matplotlib.figure import Figure

    draw = {"stream": _stream, "threads": _threads, "memory": _memory}.get(report["preset"], _grid)
    figure = Figure(layout="constrained")
    draw(report, figure)
    figure.suptitle(heading(report), fontsize=11)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=110)
    partial.rename(path)


def _cases(report: Report, kind: str) -> dict[tuple[int, ...], dict[str, Any]]:
    return {tuple(case["shape"]): case for case in report["cases"] if case["kind"] == kind}


def _grid(report: Report, figure: Any) -> None:
    """Above, our cost over PyTorch's for all shapes; below, costs over M for the smallest and largest K×N."""
    kinds = list(dict.fromkeys(case["kind"] for case in report["cases"]))
    sizes = sorted({tuple(case["shape"][1:]) for case in report["cases"]}, key=lambda s: (s[0] * s[1], s))
    columns = min(3, len(kinds))
    bands = -(-len(kinds) // columns)
    figure.set_size_inches(max(8, 4.5 * columns), bands * (4.5 + 0.3 * len(sizes)))
    panels = figure.subplots(2 * bands, columns, squeeze=False)
    for number, kind in enumerate(kinds):
        band, column = divmod(number, columns)
        _heat_map(report, kind, sizes, figure, panels[2 * band, column])
        _curves(report, kind, sizes, panels[2 * band + 1, column])
    for number in range(len(kinds), bands * columns):
        for row in (2 * bands - 2, 2 * bands - 1):
            panels[row, number % columns].remove()


def _heat_map(report: Report, kind: str, sizes: list[tuple[int, ...]], figure: Any, axes: Any) -> None:
    measure, cases = report["measure"], _cases(report, kind)
    rows = sorted({shape[0] for shape in cases})
    ratios = np.full((len(sizes), len(rows)), np.nan)
    for (M, *size), case in cases.items():
        if "torch" in case:
            ratios[sizes.index(tuple(size)), rows.index(M)] = case["acl"][measure] / case["torch"][measure]
    # Blue costs less than PyTorch, red more; the middle of the scale is where both are equal.
    image = axes.imshow(ratios, aspect="auto", cmap="RdBu_r", vmin=0, vmax=2, origin="lower")
    axes.set_facecolor("lightgrey")
    for (y, x), ratio in np.ndenumerate(ratios):
        if not np.isnan(ratio):
            text = f"{ratio:.2f}" if ratio >= 0.01 else f"{ratio:.4f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="black" if ratio > 0.3 else "white")
    axes.set_xticks(range(len(rows)), rows)
    axes.set_yticks(range(len(sizes)), [name(size) for size in sizes], fontsize=8)
    axes.set(title=f"{kind} (grey: not measured)" if np.isnan(ratios).any() else kind, xlabel="M", ylabel="K×N")
    figure.colorbar(image, ax=axes, label="acl / torch")


def _curves(report: Report, kind: str, sizes: list[tuple[int, ...]], axes: Any) -> None:
    cases = _cases(report, kind)
    factor, what = unit(report["measure"])
    # The smallest and the largest that have more than one M.
    several = [s for s in sizes if sum(shape[1:] == s for shape in cases) > 1] or sizes
    for size, style in {several[-1]: "--", several[0]: "-"}.items():
        for engine, colour in _COLOURS.items():
            points = sorted(
                (shape[0], case[engine][report["measure"]] * factor)
                for shape, case in cases.items() if shape[1:] == size and engine in case
            )  # fmt: skip
            if points:
                label = f"{engine} {name(size)}"
                axes.plot(*zip(*points, strict=True), style, color=colour, marker="o", ms=3, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    rows = sorted({shape[0] for shape in cases})
    axes.set_xticks(rows, rows)
    axes.set(xlabel="M", ylabel=what)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _stream(report: Report, figure: Any) -> None:
    factor, what = unit(report["measure"])
    bars = [
        (f"{case['kind']}\n{engine}", case[engine][report["measure"]] * factor, case[engine]["alone"] * factor)
        for case in report["cases"] for engine in ("acl", "torch") if engine in case
    ]  # fmt: skip
    axes = figure.subplots()
    places = np.arange(len(bars))
    axes.bar(places - 0.2, [bar[1] for bar in bars], 0.4, label="M changes on every call")
    axes.bar(places + 0.2, [bar[2] for bar in bars], 0.4, label="each M alone")
    axes.set_xticks(places, [bar[0] for bar in bars])
    axes.set(title="64 different M, twice", ylabel=what)
    axes.legend()


def _threads(report: Report, figure: Any) -> None:
    measure = LONGEST if report["measure"] == CYCLES else report["measure"]
    factor, what = unit(report["measure"])
    panels = figure.subplots(1, len(report["cases"]), squeeze=False)[0]
    for axes, case in zip(panels, report["cases"], strict=True):
        threads = case["threads"][:-1]
        costs = [cost[measure] * factor for cost in case["acl"][:-1]]
        axes.plot(threads, costs, marker="o", color=_COLOURS["acl"], label="acl")
        shared = [costs[0] / count for count in threads]
        axes.plot(threads, shared, ":", color="black", label="one thread's cost, shared")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(threads, threads)
        axes.set(title=f"{name(case['shape'])} {case['kind']}", xlabel="threads", ylabel=f"longest thread, {what}")
        axes.grid(alpha=0.3)
        axes.legend()


def _memory(report: Report, figure: Any) -> None:
    axes = figure.subplots()
    for place, case in enumerate(report["cases"]):
        for offset, engine in ((-0.2, "acl"), (0.2, "torch")):
            bar = axes.bar(place + offset, case[engine]["MiB"], 0.4, color=_COLOURS[engine], label=engine)
            axes.bar_label(bar, fmt="%.0f")
    axes.set_xticks(range(len(report["cases"])), [case["kind"] for case in report["cases"]])
    axes.set(title="Linear layers of a bert-base encoder", ylabel="MiB at most")
    axes.legend()
