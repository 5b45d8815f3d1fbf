# SPDX-License-Identifier: MIT
"""Files, folders and links that other processes see whole or not at all."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

from .messages import log


@contextlib.contextmanager
def holding_lock(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock file `path`, and holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"waiting for another process, which holds {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """A path beside `final`, for a file, a folder or a link that takes its place when the body has ended.

    Where the body raises, `final` stays as it was. A folder is replaced by two renames, everything else by one.
    """
    partial, old = (final.with_name(f".{final.name}.{what}") for what in ("partial", "old"))
    remove(partial)
    try:
        yield partial
        if final.is_dir() and not final.is_symlink():
            remove(old)
            final.rename(old)
        partial.rename(final)
    finally:
        if old.exists() and not final.exists():
            old.rename(final)
        remove(partial)
        remove(old)


def remove(path: Path) -> None:
    """Removes whatever is at `path`, if anything is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_atomically(file: Path, text: str) -> None:
    """Writes a text file, which other processes see as it was or as it will be."""
    with replacing(file) as partial:
        partial.write_text(text)


def replace_symlink(link: Path, target: Path) -> None:
    """Makes `link` lead to `target`, in one step."""
    if not link.is_symlink() or link.readlink() != target:
        with replacing(link) as partial:
            partial.symlink_to(target)


def beside(package: Path, suffix: str) -> Path:
    """The file of a package with this suffix."""
    return package.with_name(package.name + suffix)
