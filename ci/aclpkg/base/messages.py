# SPDX-License-Identifier: MIT
"""What commands say: progress, and errors."""

import sys


class CiError(Exception):
    """A failure whose message tells what is wrong and what to do."""


def log(text: str) -> None:
    """One line of progress."""
    print(f"== {text}", file=sys.stderr, flush=True)
