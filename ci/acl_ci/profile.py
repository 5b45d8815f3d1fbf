"""ci/profile.sh: which functions a layer's call spends its modelled cycles in."""

import argparse
import bisect
import re
import sys
from collections import Counter
from pathlib import Path


# from rich.console import Console
# from rich.table import Table

from . import build, emulator
from .cache import CiError, leave, run
from .pins import VARIANTS

# A function's instructions and 1/24 modelled cycles.
Cost = tuple[int, int]


class Symbols:
    """The functions of an ELF file by address."""

    def __init__(self, file: Path) -> None:
        found: dict[int, str] = {}
        for table in ([], ["-D"]):
            listed = run(["nm", "-C", "--defined-only", *table, file])
            for address, name in re.findall(r"^([0-9a-f]+) [tTwWiu] (.+)$", listed, re.MULTILINE):
                found[int(address, 16)] = re.sub(r"\(.*", "", name)
        self._addresses = sorted(found)
        self._names = [found[address] for address in self._addresses]
        # What is mapped from an offset of the file is loaded at an address.
        headers = run(["readelf", "-lW", file])
        self._segments = [
            (int(offset, 16), int(offset, 16) + int(size, 16), int(address, 16))
            for offset, address, size in re.findall(r"^\s+LOAD\s+(\S+) (\S+) \S+ (\S+)", headers, re.MULTILINE)
        ]

    def name(self, offset: int) -> str | None:
        """The function at an offset of the file, if the file has a symbol before it."""
        for begin, end, address in self._segments:
            if begin <= offset < end:
                index = bisect.bisect(self._addresses, offset - begin + address) - 1
                return self._names[index] if index >= 0 else None
        return None


def _snapshots(text: str) -> list[tuple[Counter[int], Counter[int], str]]:
    """Instructions and cycles by address, and the memory map, of each snapshot that the plugin wrote."""
    result = []
    for part in text.split("end\n")[:-1]:
        blocks = re.findall(r"^([0-9a-f]+) (\d+) (\d+)$", part, re.MULTILINE)
        instructions, cycles = Counter[int](), Counter[int]()
        for address, executed, cost in blocks:
            instructions[int(address, 16)] += int(executed)
            cycles[int(address, 16)] += int(cost)
        result.append((instructions, cycles, part))
    return result


def _places(maps: str, root: Path) -> list[tuple[int, int, int, Path]]:
    """Begin, end, offset in the file, and file, of what is mapped from files."""
    found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) \S+ ([0-9a-f]+) \S+ \d+ +(/.*)$", maps, re.MULTILINE)
    return sorted((int(begin, 16), int(end, 16), int(offset, 16), Path(file)) for begin, end, offset, file in found)


def by_function(text: str) -> dict[tuple[str, str], Cost]:
    """What one call cost, by file and function.

    text: what the plugin wrote, whose last four snapshots are around one call and around four.
    """
    *_, (i1, c1, _), (i2, c2, _), (i3, c3, _), (i4, c4, maps) = _snapshots(text)
    places = _places(maps, Path("/"))
    symbols: dict[Path, Symbols] = {}
    result: dict[tuple[str, str], Cost] = {}
    for address in i4:
        instructions = (i4[address] - i3[address] - i2[address] + i1[address]) / 3
        cycles = (c4[address] - c3[address] - c2[address] + c1[address]) / 3
        place = next((p for p in places if p[0] <= address < p[1]), None)
        if place is None:
            key = ("", "compiled at run time")
        else:
            begin, _end, offset, file = place
            if file not in symbols:
                symbols[file] = Symbols(file)
            key = (file.name, symbols[file].name(address - begin + offset) or "?")
        before = result.get(key, (0, 0))
        result[key] = (before[0] + instructions, before[1] + cycles)
    return {key: cost for key, cost in result.items() if cost[0] > 0}
