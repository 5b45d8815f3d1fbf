# SPDX-License-Identifier: MIT
"""Programs that are run, and our own commands."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from .messages import CiError


def run(words: Sequence[str | Path], log: Path | None = None, **options: object) -> str:
    """Runs a program and returns what it printed.

    With `log`, the output goes to that file as it comes. Raises CiError with the
    command and the end of its output when it fails.
    """
    command = list(map(str, words))
    stdout = log.open("w") if log else subprocess.PIPE
    try:
        done = subprocess.run(
            command,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **options,  # type: ignore[call-overload]
        )
    finally:
        if log:
            stdout.close()  # type: ignore[union-attr]
    output = log.read_text(errors="replace") if log else done.stdout
    if done.returncode:
        tail = "\n".join(output.splitlines()[-20:])
        where = f" (whole output: {log})" if log else ""
        raise CiError(f"{' '.join(command[:6])} … failed with {done.returncode}{where}:\n{tail}")
    return output


def exit_now(status: int) -> NoReturn:
    """Ends the process without Python's finalization, in which py-rattler 0.28's threads can crash it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Runs `main` and ends the process with what it returns; a CiError becomes a line and status 1."""
    try:
        status = main()
    except CiError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        exit_now(1)
    exit_now(status or 0)


@contextmanager
def changed_environment(**variables: str) -> Iterator[None]:
    """Gives this process, and what it starts, other environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
