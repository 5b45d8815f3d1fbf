"""Packages and sources of any Debian release and architecture, without touching the machine's apt.

apt runs with a configuration, a package list and a status of its own, against the
mirror that the machine's own configuration names, and verifies signatures with
the keys that the machine has.
"""

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..base.cache import cached_dir
from ..base.files import holding_lock
from ..base.messages import CiError
from ..base.paths import CACHE, ROOT
from ..base.processes import run

# The sha256 of every file, by SUITE/ARCHITECTURE/NAME; ci/lock.sh writes it.
LOCK = ROOT / "ci/debian.lock"
SOURCE = ["source", "--tar-only", "--download-only"]
FRESH_SECONDS = 600
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Remote:
    """A file that apt can fetch."""

    file: str
    sha256: str


@cache
def _mirror() -> str:
    """The address of Debian's archive in the machine's own apt configuration."""
    if not shutil.which("apt-get"):
        raise CiError(
            "program 'apt-get' is missing: without it, packages must come from a conda channel; "
            "pass --channel URL (conda-forge, say)"
        )
    lines = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"])
    release = run(["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"]).strip()
    for line in lines.splitlines():
        address, name, component = line.rsplit(" ", 2)
        if name == release and component == "main":
            return address
    raise CiError(f"apt on this machine names no archive for Debian {release} main")


@cache
def _apt(suite: str, arch: str) -> Path:
    """The configuration file for `suite` and `arch`, with package lists that are at most ten minutes old."""
    home = CACHE / "apt" / f"{suite}-{arch}"
    for name in ("etc", "state/lists/partial", "cache/archives/partial", "log"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    config, updated = home / "apt.conf", home / "updated"
    texts = {
        home / "etc/debian.sources": f"Types: deb deb-src\nURIs: {_mirror()}\nSuites: {suite}\nComponents: main\n"
        f"Signed-By: {KEYRING}\n",
        config: f"""
        Dir::Etc "{home}/etc"; Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "{home}/etc";
        Dir::State "{home}/state"; Dir::State::status "{home}/status";
        Dir::Cache "{home}/cache"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; Dir::Log "{home}/log";
        APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }};
        APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Retries "3";
        """,
    }
    # apt reads its lists without a lock, and does not wait for the one it writes them with.
    with holding_lock(home.with_name(f"{home.name}.lock")):
        for file, text in texts.items():
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
                updated.unlink(missing_ok=True)
        if not updated.exists() or time.time() - updated.stat().st_mtime > FRESH_SECONDS:
            run(["apt-get", "update"], env=_environment(config))
            updated.touch()
    return config


def _environment(config: Path) -> dict[str, str]:
    return {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}


def _fetch(config: Path, arguments: list[str], wanted: list[Remote], name: str) -> list[Path]:
    """The wanted files, as they are expected to be, downloaded where the cache does not have them."""

    def check(home: Path) -> None:
        for remote in wanted:
            check_sha256(home / remote.file, remote.sha256)

    def download(target: Path) -> None:
        run(["apt-get", *arguments], cwd=target, env=_environment(config))
        check(target)

    home = cached_dir(name, [[r.file, r.sha256] for r in wanted], download)
    check(home)
    return [home / remote.file for remote in wanted]


def _listed(config: Path, arguments: list[str]) -> list[Remote]:
    output = run(["apt-get", *arguments, "--print-uris"], env=_environment(config))
    found = re.findall(r"^'([^']+)' (\S+) \d+ SHA256:([0-9a-f]{64})$", output, re.MULTILINE)
    return sorted((Remote(file, sha256) for _, file, sha256 in found), key=lambda r: r.file)


def offered(suite: str, arch: str, names: list[str]) -> list[Remote]:
    """The .deb files that Debian has of `names`. arch: amd64 or arm64."""
    wanted = _listed(_apt(suite, arch), ["download", *names])
    if len(wanted) != len(names):
        raise CiError(f"Debian {suite} {arch} offers {len(wanted)} of the {len(names)} packages {names}")
    return wanted


def offered_source(suite: str, package: str) -> Remote:
    """The upstream tarball that Debian has of a source package."""
    wanted = _listed(_apt(suite, "amd64"), [*SOURCE, package])
    if len(wanted) != 1:
        raise CiError(f"Debian {suite} offers {len(wanted)} upstream tarballs of {package}, expected 1")
    return wanted[0]


def packages(suite: str, arch: str, names: list[str]) -> list[Path]:
    """The .deb files of `names`, without their dependencies, as in ci/debian.lock. arch: amd64 or arm64."""
    wanted = offered(suite, arch, names)
    for remote in wanted:
        _check_locked(f"{suite}/{arch}", remote)
    return _fetch(_apt(suite, arch), ["download", *names], wanted, f"debs/{suite}-{arch}")


def source(suite: str, package: str, sha256: str | None = None) -> Path:
    """The upstream tarball of a source package, with this sha256 or the one in ci/debian.lock."""
    remote = offered_source(suite, package)
    if not sha256:
        _check_locked(f"{suite}/source", remote)
    elif remote.sha256 != sha256:
        raise CiError(
            f"Debian {suite}'s {remote.file} has sha256 {remote.sha256}, expected {sha256} "
            "(recipe/variants.yaml): Debian has another version now; add a row for it, or use another"
        )
    return _fetch(_apt(suite, "amd64"), [*SOURCE, package], [remote], f"sources/{package}")[0]


def _check_locked(place: str, remote: Remote) -> None:
    """Raises CiError for a file that ci/debian.lock does not have. place: SUITE/ARCHITECTURE."""
    locked = _locked().get(f"{place}/{remote.file}")
    if locked != remote.sha256:
        raise CiError(
            f"Debian's {place}/{remote.file} has sha256 {remote.sha256}, expected {locked or 'another version'} "
            "(ci/debian.lock): Debian has released an update; run ci/lock.sh and commit what it changes"
        )


@cache
def _locked() -> dict[str, str]:
    lines = (line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#"))
    return {name: sha256 for sha256, name in lines}


def check_sha256(path: Path, expected: str) -> None:
    """Raises CiError when the file's sha256 is another one."""
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise CiError(f"{path} has sha256 {actual}, expected {expected}: delete its folder and try again")


def unpack(debs: list[Path], target: Path) -> None:
    """Unpacks .deb files into a folder, with absolute links made relative to it."""
    for deb in debs:
        subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], check=True)
    for path in target.rglob("*"):
        if path.is_symlink() and (link := path.readlink()).is_absolute():
            path.unlink()
            path.symlink_to(Path(*[".."] * (len(path.relative_to(target).parts) - 1)) / link.relative_to("/"))
