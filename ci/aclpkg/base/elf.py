# SPDX-License-Identifier: MIT
"""What ELF files say: whom they are for, which versions of symbols they use, and where their functions are."""

import bisect
from collections.abc import Iterable
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection, GNUVerSymSection
from elftools.elf.sections import SymbolTableSection

MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
FUNCTIONS = ("STT_FUNC", "STT_GNU_IFUNC", "STT_LOOS")


def is_program_for(file: Path, machine: str) -> bool:
    """Whether a file is an ELF program or shared library for `machine`, x86_64 or aarch64; links are none."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as content:
        try:
            header = ELFFile(content).header
        except ELFError:
            return False
    return header.e_type in ("ET_EXEC", "ET_DYN") and header.e_machine == MACHINES[machine]


def required_symbol_versions(file: Path) -> set[str]:
    """The versions of other libraries' symbols that a file needs: GLIBC_2.17, say."""
    with file.open("rb") as content:
        section = ELFFile(content).get_section_by_name(".gnu.version_r")
        if not isinstance(section, GNUVerNeedSection):
            return set()
        return {version.name for _, versions in section.iter_versions() for version in versions}


def needed_symbols(file: Path) -> dict[str, dict[str, set[str]]]:
    """The symbols that a file needs, by library and version: {"libc.so.6": {"GLIBC_2.17": {"printf"}}}, say.

    Of those without a version a file does not say where they are: they are in {"": {"": {…}}}.
    """
    anywhere: set[str] = set()
    found: dict[str, dict[str, set[str]]] = {"": {"": anywhere}}
    numbered: dict[int, set[str]] = {}
    with file.open("rb") as content:
        elf = ELFFile(content)
        sections = [elf.get_section_by_name(name) for name in (".dynamic", ".gnu.version_r", ".dynsym", ".gnu.version")]
        dynamic, needed, symbols, versions = sections
        if isinstance(dynamic, DynamicSection):
            found |= {tag.needed: {} for tag in dynamic.iter_tags("DT_NEEDED")}  # type: ignore[attr-defined]
        if isinstance(needed, GNUVerNeedSection):
            for library, names in needed.iter_versions():
                of_library = found.setdefault(str(library.name), {})
                numbered |= {name["vna_other"]: of_library.setdefault(str(name.name), set()) for name in names}
        if isinstance(symbols, SymbolTableSection) and isinstance(versions, GNUVerSymSection):
            for symbol, version in zip(symbols.iter_symbols(), versions.iter_symbols(), strict=True):
                if symbol["st_shndx"] == "SHN_UNDEF":
                    numbered.get(version["ndx"], anywhere).add(symbol.name)
    return found


def newest_symbol_versions(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """The newest version of each kind (GLIBC, GLIBCXX, GCC …) that files need; what has no number is left out."""
    newest: dict[str, tuple[int, ...]] = {}
    for file in files:
        for name in required_symbol_versions(file):
            kind, _, version = name.partition("_")
            if version.replace(".", "").isdigit():
                numbers = tuple(map(int, version.split(".")))
                newest[kind] = max(newest.get(kind, numbers), numbers)
    return newest


class FunctionTable:
    """The functions of a file by where they are in it; their names are mangled."""

    def __init__(self, file: Path) -> None:
        found: dict[int, str] = {}
        with file.open("rb") as content:
            elf = ELFFile(content)
            for section in elf.iter_sections():
                if isinstance(section, SymbolTableSection):
                    for symbol in section.iter_symbols():
                        entry = symbol.entry
                        if entry.st_info.type in FUNCTIONS and entry.st_shndx != "SHN_UNDEF":
                            found[entry.st_value] = symbol.name
            # What is mapped from an offset of the file is loaded at an address.
            self._segments = [
                (segment["p_offset"], segment["p_offset"] + segment["p_filesz"], segment["p_vaddr"])
                for segment in elf.iter_segments("PT_LOAD")
            ]
        self._addresses = sorted(found)
        self._names = [found[address] for address in self._addresses]

    def name(self, offset: int) -> str | None:
        """The function at an offset of the file, if the file has a symbol before it."""
        for begin, end, address in self._segments:
            if begin <= offset < end:
                index = bisect.bisect(self._addresses, offset - begin + address) - 1
                return self._names[index] if index >= 0 else None
        return None
