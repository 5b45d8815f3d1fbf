"""Files and links that other processes see whole or not at all."""

import contextlib
import fcntl
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


def replace_symlink(link: Path, target: Path) -> None:
    """Makes `link` lead to `target`, in one step."""
    if link.is_symlink() and link.readlink() == target:
        return
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.rename(link)


def beside(package: Path, suffix: str) -> Path:
    """The file of a package with this suffix."""
    return package.with_name(package.name + suffix)


def write_atomically(file: Path, text: str) -> None:
    """Writes a text file, which other processes see as it was or as it will be."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text)
    partial.rename(file)
