# SPDX-License-Identifier: MIT
"""Hashes of files, and of folders."""

import hashlib
import os
from pathlib import Path


def sha256(file: Path) -> str:
    """The file's sha256, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


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
