# SPDX-License-Identifier: MIT
"""How long build_acl.sh takes."""

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from ..base import environment
from ..base.cache import cached_dir
from ..base.messages import CiError, log
from ..base.paths import CACHE, ROOT
from ..base.pins import PYTHON, VARIANTS
from ..base.processes import run
from ..build import dist, recipes
from ..inputs import bootstrap
from . import bench


def build_figures() -> list[dict[str, Any]]:
    """Seconds that build_acl.sh takes, cold and with a warm ccache, and the size of what it makes."""
    machine = bootstrap.SUBDIR[bootstrap.BUILD_ARCH]
    source = recipes.debian_source(VARIANTS["acl_source"][0], VARIANTS["acl_sha256"][0])
    if not source:
        raise CiError("--builds needs apt, which ACL's source comes through")
    specs = ["gxx_linux-aarch64", "sysroot_linux-aarch64", "scons", "ccache", f"python {PYTHON}.*"]
    tools = (
        cached_dir(
            "acl-build-tools",
            [dist.upstream_of_built_channel(), specs],
            lambda target: _install(target / "prefix", specs, machine),
        )
        / "prefix"
    )
    figures = []
    # The one with more to compile.
    variant = VARIANTS["acl_variant"][0]
    for operators in VARIANTS["operators"]:
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            for ccache in ("cold", "warm"):
                log(f"building ACL, {variant}, {operators}, {ccache} ccache")
                figures.append(_time_build(tools, source, variant, operators, ccache, Path(work)))
    return figures


def _install(target: Path, specs: list[str], machine: str) -> None:
    environment.create(target, dist.upstream_of_built_channel(), specs, None, platform=machine)


def _time_build(tools: Path, source: Path, variant: str, operators: str, ccache: str, work: Path) -> dict[str, Any]:
    installed = work / ccache
    options = ["--variant", variant, "--operators", operators, "--source", str(source), "--prefix", str(installed)]
    variables = {
        **os.environ,
        "PATH": f"{tools}/bin:{os.environ['PATH']}",
        "CCACHE_DIR": str(work / "ccache"),
        "CCACHE_COMPILERCHECK": "content",
        "CCACHE_NOHASHDIR": "1",
        "CCACHE_BASEDIR": "/",
    }
    variables.pop("BUILD_PREFIX", None)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run(environment.activated_command(tools, [ROOT / "build_acl.sh", *options]), env=variables, cwd=work)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "variant": variant,
        "operators": operators,
        "ccache": ccache,
        "seconds": round(time.monotonic() - started),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime),
        "library_bytes": (installed / "lib/libarm_compute.so").stat().st_size,
    }


def builds_table(figures: list[dict[str, Any]]) -> Table:
    """What building ACL takes."""
    table = bench.new_table(
        "build_acl.sh", 3, "variant", "operators", "ccache", "seconds", "CPU seconds", "library MiB"
    )
    for row in figures:
        cells = (f"{row['seconds']:,}", f"{row['cpu_seconds']:,}", f"{row['library_bytes'] / 2**20:.1f}")
        table.add_row(row["variant"], row["operators"], row["ccache"], *cells)
    return table
