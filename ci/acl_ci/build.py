"""ci/build.sh: a channel with both packages, a prefix per microarchitecture, and a table for each."""

import argparse
import asyncio
import json
import shutil
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urlsplit

import archspec.cpu
from rattler import Channel
from rattler.index import index_fs

from . import bootstrap, emulator, packages, prefix
from .cache import DIST, CiError, command, locked, say
from .pins import VARIANTS

CHANNEL = DIST / "channel"
UPSTREAM = DIST / "upstream.json"
# What the tables compare with, the newest pinned PyTorch, and on what kinds of layers.
TORCH = VARIANTS["pytorch"][-1]
SHOWN_KINDS = ("u8 tensor", "s8 tensor", "u8 channel", "dynamic channel")


def upstream_channels(given: list[str]) -> list[str]:
    """The channels with everything that is not ours.

    The given ones; without any, conda-forge where it is reached, and our bootstrap
    channel elsewhere, or where "bootstrap" is given.
    """
    if not given:
        given = ["conda-forge"] if _is_reached("conda-forge") else ["bootstrap"]
        say(f"compilers, Python and PyTorch come from: {given[0]}")
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


def build_channel(upstream: list[str], profile: str, version: str, channel: Path = CHANNEL) -> Path:
    """Builds all packages of a profile into the folder `channel`, which is replaced when all are there."""
    partial, old = (channel.with_name(f"{channel.name}.{what}") for what in ("partial", "old"))
    try:
        DIST.mkdir(parents=True, exist_ok=True)
        with locked(DIST / ".lock"):
            try:
                _fill_channel(partial, upstream, profile, version)
                UPSTREAM.write_text(json.dumps(upstream))
                _link_bootstrap(upstream)
                shutil.rmtree(old, ignore_errors=True)
                if channel.exists():
                    channel.rename(old)
                partial.rename(channel)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise CiError(
            f"{channel} cannot be made: {error}; make room, or set ACL_QLINEAR_DIST to a folder that can be written to"
        ) from error
    return channel


def _link_bootstrap(upstream: list[str]) -> None:
    """Points dist/bootstrap to the folder that is our upstream channel; env/lock's files lead through it."""
    link = DIST / "bootstrap"
    link.unlink(missing_ok=True)
    for address in upstream:
        if address.startswith("file:"):
            link.symlink_to(unquote(urlsplit(address).path))
            return


def _fill_channel(channel: Path, upstream: list[str], profile: str, version: str) -> None:
    shutil.rmtree(channel, ignore_errors=True)
    for subdir in ("noarch", prefix.PLATFORM):
        (channel / subdir).mkdir(parents=True)
    asyncio.run(index_fs(channel))
    for name in ("acl-microarch", "arm-compute-library", "acl-qlinear"):
        packages.build(name, channel, upstream, profile=profile, acl_version=version)
        asyncio.run(index_fs(channel))


def install(microarchitecture: str, torch: str, upstream: list[str], extra: list[str]) -> Path:
    """A fresh prefix with acl-qlinear for a microarchitecture and a PyTorch minor."""
    target = DIST / "prefix" / f"{microarchitecture}-pytorch{torch}"
    cpu = emulator.CPUS[microarchitecture][0].replace("-", "_")
    target.parent.mkdir(parents=True, exist_ok=True)
    specs = ["acl-qlinear", f"pytorch {torch}.*", "python 3.11.*", *extra]
    prefix.create(target, [CHANNEL.as_uri(), *upstream], specs, cpu)
    return target


def measure(home: Path, cpu: str, *options: str) -> tuple[dict, str]:
    """What `python -m acl_qlinear.bench` reports and prints in a prefix, on AArch64 or on an emulated `cpu`."""
    counts, report = home / "counts.txt", home / "bench.json"
    for file in (counts, report):
        file.unlink(missing_ok=True)
    counters = [] if emulator.NATIVE else ["--counters", str(counts)]
    program = ["python3.11", "-m", "acl_qlinear.bench", *counters, "--json", str(report), *options]
    done = emulator.run_program(home, program, cpu, counts)
    if done.returncode:
        raise CiError(f"acl_qlinear.bench failed in {home} with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(report.read_text()), done.stdout


def measured_here() -> list[str]:
    """The builds that can be run: all under emulation; on AArch64 those that have what they need."""
    host = archspec.cpu.host().name
    able = {"armv8_2a": True, "neoverse_v1": not emulator.NATIVE or host in VARIANTS["neoverse_v1_cpu"]}
    for microarchitecture in VARIANTS["microarchitecture"]:
        if not able[microarchitecture]:
            say(f"not measured: {microarchitecture}, since this CPU is a {host}")
    return [m for m in VARIANTS["microarchitecture"] if able[m]]


def measured_cpu(emulated: str) -> str:
    """The CPU that `measure` runs on."""
    return "this machine" if emulator.NATIVE else f"emulated {emulated}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="ci/build.sh", description=__doc__)
    parser.add_argument(
        "--channel", action="append", default=[], metavar="URL",
        help="take compilers, Python and PyTorch from this conda channel; may be repeated; 'bootstrap' is one made "
        "of Debian's packages and PyPI's wheels (default: conda-forge where it is reached, else bootstrap)",
    )  # fmt: skip
    parser.add_argument("--profile", choices=VARIANTS["profile"], default="qlinear", help="how much of ACL to build")
    parser.add_argument("--no-table", action="store_true", help="stop when the channel is there")
    options = parser.parse_args()

    upstream = upstream_channels(options.channel)
    build_channel(upstream, options.profile, packages.acl_version())
    say(f"channel: {CHANNEL}")
    if options.no_table:
        return
    kinds = [word for kind in SHOWN_KINDS for word in ("--kind", kind)]
    reports = []
    for microarchitecture in measured_here():
        say(f"installing and measuring acl-qlinear for {microarchitecture}")
        home = install(microarchitecture, TORCH, upstream, [])
        cpus = ["this machine"] if emulator.NATIVE else emulator.CPUS[microarchitecture]
        for cpu in cpus:
            report, printed = measure(home, cpu, *kinds)
            reports.append(report)
            print(f"\n{printed}", end="", flush=True)
    (DIST / "bench.json").write_text(json.dumps(reports, indent=2) + "\n")


if __name__ == "__main__":
    command(main)
