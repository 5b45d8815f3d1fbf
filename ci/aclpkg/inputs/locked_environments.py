# SPDX-License-Identifier: MIT
"""The environments in env/lock."""

import tempfile
from pathlib import Path

from rattler import LockFile, RepoDataRecord

from ..base.messages import CiError
from ..base.paths import DIST, ROOT

ENVIRONMENTS = ROOT / "env/lock"
HERE = "dist/bootstrap"


def locked_environment(name: str) -> list[RepoDataRecord]:
    """The packages of an environment in env/lock, with addresses that lead to them from here.

    Raises CiError for a name that is not there.
    """
    file = ENVIRONMENTS / "pixi.lock"
    with tempfile.TemporaryDirectory() as work:
        # rattler's records take no relative paths.
        absolute = Path(work) / file.name
        absolute.write_text(file.read_text().replace(f"../../{HERE}", str((DIST / "bootstrap").resolve())))
        found = dict(LockFile.from_path(absolute).environments())
    pixi_name = name.replace(".", "-")
    if pixi_name not in found:
        raise CiError(f"{name} is not in {file}, which has: {', '.join(sorted(found))}")
    (platform,) = found[pixi_name].platforms()
    return found[pixi_name].conda_repodata_records_for_platform(platform) or []
