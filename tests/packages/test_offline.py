# SPDX-License-Identifier: MIT
"""With everything cached, the two commands take no network."""

import os
import subprocess
from pathlib import Path

import pytest
from aclpkg.base.paths import ROOT

# What it leaves of the network is this machine alone, which tests' own servers are on.
CUT_OFF = [
    "unshare",
    "--net",
    *["--map-root-user"] * (os.getuid() != 0),
    "sh",
    "-c",
    'ip link set lo up && exec "$@"',
    "sh",
]


@pytest.mark.parametrize(
    "command",
    [
        ["ci/build.sh", "--no-table"],
        ["ci/test.sh", "tests/unit/test_debian.py"],
        ["ci/test.sh", "tests/packages/test_solve.py"],
    ],
    ids=["build", "unit", "packages"],
)
def test_without_network(tmp_path: Path, command: list[str]) -> None:
    tried = subprocess.run([*CUT_OFF, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no network namespace can be made here: {tried.stderr.strip()}")
    # Other tests read dist/channel at the same time.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    variables["ACL_QLINEAR_DIST"] = str(tmp_path / "dist")
    done = subprocess.run([*CUT_OFF, *command], cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    print(done.stdout[-3000:], done.stderr[-3000:])
    assert done.returncode == 0
    assert "building" not in done.stderr and "downloading" not in done.stderr
