# SPDX-License-Identifier: MIT
"""The cache: finished folders, each named after a hash of all that went into it.

Deleting any of it, at any time, costs time and changes nothing.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from .files import holding_lock, replacing
from .messages import CiError
from .paths import CACHE


def cached_dir(name: str, inputs: object, make: Callable[[Path], None]) -> Path:
    """The cached folder that `make(empty folder)` fills from `inputs` (anything JSON can hold).

    It appears under its name only when `make` has returned; two processes that
    want the same folder wait for one another.
    """
    final = _place(name, inputs)
    if final.is_dir():
        return final
    with holding_lock(final.with_name(f"{final.name}.lock")):
        if final.is_dir():
            return final
        try:
            with replacing(final) as partial:
                partial.mkdir(parents=True)
                make(partial)
        except OSError as error:
            raise CiError(f"{final} cannot be made: {error}; make room, and try again") from error
    return final


def find_cached(name: str, inputs: object) -> Path | None:
    """Returns the folder that `cached_dir` has made, or None."""
    place = _place(name, inputs)
    return place if place.is_dir() else None


def _place(name: str, inputs: object) -> Path:
    # The same wherever the cache is.
    text = json.dumps(inputs, sort_keys=True).replace(str(CACHE), "")
    return CACHE / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
