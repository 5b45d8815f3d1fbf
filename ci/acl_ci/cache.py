"""The cache: finished folders, each named after a hash of all that went into it.

Deleting any of it, at any time, costs time and changes nothing.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acl-qlinear"
# What is built: elsewhere, where the checkout cannot be written to.
DIST = Path(os.environ.get("ACL_QLINEAR_DIST") or ROOT / "dist").absolute()


class CiError(Exception):
    """A failure whose message tells what is wrong and what to do."""


def tree_hash(*paths: Path) -> str:
    """sha256 over the names, modes and contents of files and of the files below folders."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            if "__pycache__" in file.parts:
                continue
            name = file.relative_to(path.parent).as_posix()
            digest.update(f"{name}\0{os.access(file, os.X_OK)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def folder(name: str, inputs: object, make: Callable[[Path], None]) -> Path:
    """The cached folder that `make(empty folder)` fills from `inputs` (anything JSON can hold).

    It appears under its name only when `make` has returned; two processes that
    want the same folder wait for one another.
    """
    # The same wherever the cache is.
    text = json.dumps(inputs, sort_keys=True).replace(str(CACHE), "")
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    final = CACHE / f"{name}-{key}"
    if final.is_dir():
        return final
    with locked(CACHE / f"{name}-{key}.lock"):
        if final.is_dir():
            return final
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            make(partial)
            partial.rename(final)
        except OSError as error:
            raise CiError(f"{final} cannot be made: {error}; make room, and try again") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock file `path`, and holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process, which holds {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str | Path], log: Path | None = None, **options: object) -> str:
    """Runs a command and returns what it printed.

    With `log`, the output goes to that file as it comes. Raises CiError with the
    command and the end of its output when it fails.
    """
    words = [str(word) for word in command]
    stdout = log.open("w") if log else subprocess.PIPE
    try:
        done = subprocess.run(
            words, stdout=stdout, stderr=subprocess.STDOUT, text=True, check=False, **options  # type: ignore[call-overload]
        )
    finally:
        if log:
            stdout.close()  # type: ignore[union-attr]
    output = log.read_text(errors="replace") if log else done.stdout
    if done.returncode:
        tail = "\n".join(output.splitlines()[-20:])
        where = f" (whole output: {log})" if log else ""
        raise CiError(f"{' '.join(words[:6])} … failed with {done.returncode}{where}:\n{tail}")
    return output


def leave(status: int) -> NoReturn:
    """Ends the process without Python's finalization, in which py-rattler 0.28's threads can crash it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def command(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and ends the process with what it returns; a CiError becomes a line and status 1."""
    try:
        status = main()
    except CiError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        leave(1)
    leave(status or 0)


def say(text: str) -> None:
    """One line of progress."""
    print(f"== {text}", file=sys.stderr, flush=True)
