# SPDX-License-Identifier: MIT
"""Printing where a terminal, or a file, takes ASCII only. Imports nothing but Python's own."""

import codecs
import sys
from io import TextIOWrapper

_PLAIN = {"→": "->", "×": "x", "–": "-", "…": "...", "µ": "u"}


def print_what_streams_can_take() -> None:
    """Makes stdout and stderr write characters that they cannot encode in another way, instead of failing."""
    codecs.register_error("acl_qlinear.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="acl_qlinear.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    return _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode(), error.start + 1
