# SPDX-License-Identifier: MIT
"""What commands say: progress, and errors."""

import sys


class CiError(Exception):
    """A failure whose message tells what is wrong and what to do."""


def log(text: str) -> None:
    """One line of progress."""
    # In one piece, also where threads and processes log at the same time.
    print(f"== {text}\n", end="", file=sys.stderr, flush=True)
