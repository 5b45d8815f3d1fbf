# SPDX-License-Identifier: MIT
"""Which functions a layer's call spends its instructions and modelled cycles in."""

import re
from collections import Counter
from pathlib import Path

from rich import box
from rich.table import Table

from ..base.elf import FunctionTable
from ..base.messages import CiError
from ..base.processes import run
from ..inputs import emulator

# A function's instructions and 1/24 modelled cycles.
Cost = tuple[float, float]


def _readable(names: list[str]) -> list[str]:
    """Mangled names as people know them."""
    # Two lists of one length: a name has no line break.
    demangled = run(["c++filt"], input="\n".join(names)).splitlines()
    return [_short(name) for name in demangled]


def _short(name: str) -> str:
    """A demangled name without parameters, template arguments and return type."""
    name = name.replace("(anonymous namespace)::", "")
    for brackets in (r"<[^<>]*>", r"\([^()]*\)"):
        while (shorter := re.sub(brackets, "", name)) != name:
            name = shorter
    return name.split(" ")[-1] if " " in name and "operator" not in name else name


# Runs in the prefix. `Counters` first reads the counters 9 times to learn what reading costs.
GUEST = """
import sys
from pathlib import Path
import torch
from acl_qlinear.bench.__main__ import parse_shape
from acl_qlinear.bench.cases import make_case
from acl_qlinear.bench.meters import Counters

torch.set_num_threads(1)
with torch.no_grad():
    Counters(Path(sys.argv[4])).costs({"": make_case(*parse_shape(sys.argv[1]), sys.argv[2]).call(sys.argv[3])})
"""


def _snapshot(text: str) -> tuple[Counter[int], Counter[int]]:
    """Instructions and cycles by address."""
    instructions, cycles = Counter[int](), Counter[int]()
    for address, executed, cost in re.findall(r"^([0-9a-f]+) (\d+) (\d+)$", text, re.MULTILINE):
        instructions[int(address, 16)] += int(executed)
        cycles[int(address, 16)] += int(cost)
    return instructions, cycles


def by_function(text: str) -> dict[tuple[str, str], Cost]:
    """What one call cost, by file and function.

    text: what the plugin wrote while GUEST ran.
    """
    parts = text.split("end\n")[:-1]
    own = [_snapshot(parts[i]) for i in (4, 8)]
    calls = [_snapshot(parts[i]) for i in (-4, -1)]
    mapped = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)$", parts[-1], re.MULTILINE)
    places = [(int(begin, 16), int(end, 16), int(offset, 16), Path(file)) for begin, end, offset, file in mapped]
    tables: dict[Path, FunctionTable] = {}
    mangled: dict[tuple[str, str], Cost] = {}
    for address in calls[1][0]:
        one = [
            (calls[1][i][address] - calls[0][i][address]) / 3 - (own[1][i][address] - own[0][i][address]) / 4
            for i in (0, 1)
        ]
        key = ("", "compiled at run time")
        for begin, end, offset, file in places:
            if begin <= address < end:
                if file not in tables:
                    tables[file] = FunctionTable(file)
                key = (file.name, tables[file].name(address - begin + offset) or "?")
        _add(mangled, key, (one[0], one[1]))
    result: dict[tuple[str, str], Cost] = {}
    for (file_name, _), name, cost in zip(
        mangled, _readable([name for _, name in mangled]), mangled.values(), strict=True
    ):
        _add(result, (file_name, name), cost)
    return {key: cost for key, cost in result.items() if cost[0] > 0}


def _add(costs: dict[tuple[str, str], Cost], key: tuple[str, str], cost: Cost) -> None:
    before = costs.get(key, (0, 0))
    costs[key] = (before[0] + cost[0], before[1] + cost[1])


def count_by_function(home: Path, cpu: str, shape: str, kind: str, engine: str) -> dict[tuple[str, str], Cost]:
    """What one call costs in an installed prefix, by file and function."""
    counts, functions = home / "counts.txt", home / "hotspots.txt"
    for file in (counts, functions):
        file.unlink(missing_ok=True)
    done = emulator.run_program(home, ["python", "-c", GUEST, shape, kind, engine, counts], cpu, counts, functions)
    if done.returncode:
        raise CiError(f"the call failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return by_function(functions.read_text())


def costs_table(costs: dict[tuple[str, str], Cost], title: str, rows: int) -> Table:
    """The dearest functions, with the rest and the sum below."""
    result = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for heading in ("instructions", "cycles", "share"):
        result.add_column(heading, justify="right", no_wrap=True)
    for heading in ("file", "function"):
        result.add_column(heading, no_wrap=True)
    total = [sum(cost[i] for cost in costs.values()) for i in (0, 1)]
    ranked = sorted(costs.items(), key=lambda item: -item[1][1])
    rest = [sum(cost[i] for _, cost in ranked[rows:]) for i in (0, 1)]
    for (file, function), (instructions, cycles) in [*ranked[:rows], (("", "all others"), rest), (("", "sum"), total)]:
        share = f"{cycles / total[1]:.1%}"
        result.add_row(f"{instructions:,.0f}", f"{cycles / 24:,.0f}", share, file[:24], function[:44])
    return result
