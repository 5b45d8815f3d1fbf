# SPDX-License-Identifier: MIT
"""What ci/build.sh leaves in dist/: the channel, and prefixes installed from it."""

import asyncio
import json
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rattler import Channel
from rattler.index import index_fs

from ..base import environment
from ..base.files import holding_lock, remove, replace_symlink, replacing, write_atomically
from ..base.messages import CiError, log
from ..base.paths import DIST
from ..base.pins import MICROARCHITECTURES, PYTHON
from ..inputs import bootstrap
from . import bytecode, packages, recipes

CHANNEL = DIST / "channel"
UPSTREAM = DIST / "upstream.json"


def upstream_channels(given: list[str]) -> list[str]:
    """The channels with everything that is not ours.

    The given ones; without any, conda-forge where it is reached, and our bootstrap
    channel elsewhere, or where "bootstrap" is given.
    """
    if not given:
        given = ["conda-forge"] if _is_reached("conda-forge") else ["bootstrap"]
        log(f"compilers, Python and PyTorch come from: {given[0]}")
    return [bootstrap.channel().as_uri()] if given == ["bootstrap"] else given


def _is_reached(channel: str) -> bool:
    address = f"{Channel(channel).base_url.rstrip('/')}/noarch/repodata.json.zst"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=10):
            return True
    except OSError:
        return False


def upstream_of_built_channel() -> list[str]:
    """The channels that dist/channel was built with."""
    return json.loads(UPSTREAM.read_text())


def build_channel(upstream: list[str], operators: str) -> None:
    """Builds all packages into dist/channel, which is replaced when all are there.

    upstream: the channels with everything that is not ours. operators: qlinear, or full for all of ACL.
    """
    try:
        DIST.mkdir(parents=True, exist_ok=True)
        with holding_lock(DIST / ".lock"), replacing(CHANNEL) as partial:
            fill_channel(partial, upstream, list(recipes.SOURCES), operators=operators)
            write_atomically(UPSTREAM, json.dumps(upstream))
            _link_bootstrap(upstream)
    except OSError as error:
        raise CiError(
            f"{CHANNEL} cannot be made: {error}; make room, or set ACL_QLINEAR_DIST to a folder that can be written to"
        ) from error


def fill_channel(channel: Path, upstream: list[str], names: list[str], **wanted: str) -> None:
    """Builds the wanted rows of the recipes `names`, in this order, into `channel`, a new folder."""
    for subdir in ("noarch", environment.PLATFORM):
        (channel / subdir).mkdir(parents=True)
    asyncio.run(index_fs(channel))
    for name in names:
        packages.build_packages(name, channel, upstream, **wanted)
        asyncio.run(index_fs(channel))


def _link_bootstrap(upstream: list[str]) -> None:
    """Points dist/bootstrap to the folder that is our upstream channel; env/lock's files lead through it."""
    folders = [Path(unquote(urlsplit(address).path)) for address in upstream if address.startswith("file:")]
    if folders:
        replace_symlink(DIST / "bootstrap", folders[0])
    else:
        remove(DIST / "bootstrap")


def install(microarchitecture: str, torch: str, upstream: list[str], extra: list[str], suffix: str = "") -> Path:
    """A fresh prefix with acl-qlinear for a microarchitecture and a PyTorch minor; suffix: of its folder's name."""
    target = DIST / "prefix" / f"{microarchitecture}-pytorch{torch}{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    specs = ["acl-qlinear", f"pytorch {torch}.*", f"python {PYTHON}.*", *extra]
    environment.create(target, [CHANNEL.as_uri(), *upstream], specs, MICROARCHITECTURES[microarchitecture].archspec_cpu)
    bytecode.compile_files(target, upstream)
    return target
