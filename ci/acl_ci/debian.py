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
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .cache import CACHE, CiError, folder, run

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
    """The configuration file for `suite` and `arch`, with package lists that are current."""
    home = CACHE / "apt" / f"{suite}-{arch}"
    for name in ("etc", "state/lists/partial", "cache/archives/partial", "log"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    (home / "etc/debian.sources").write_text(
        f"Types: deb deb-src\nURIs: {_mirror()}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n"
    )
    config = home / "apt.conf"
    config.write_text(
        f"""
        Dir::Etc "{home}/etc"; Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "{home}/etc";
        Dir::State "{home}/state"; Dir::State::status "{home}/status";
        Dir::Cache "{home}/cache"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; Dir::Log "{home}/log";
        APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }};
        APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Retries "3";
        """
    )
    run(["apt-get", "update"], env=_environment(config))
    return config


def _environment(config: Path) -> dict[str, str]:
    return {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}


def _fetch(config: Path, arguments: list[str], wanted: list[Remote], name: str) -> Path:
    def download(target: Path) -> None:
        run(["apt-get", *arguments], cwd=target, env=_environment(config))
        for remote in wanted:
            check_sha256(target / remote.file, remote.sha256)

    return folder(name, [[r.file, r.sha256] for r in wanted], download)


def _listed(config: Path, arguments: list[str]) -> list[Remote]:
    output = run(["apt-get", *arguments, "--print-uris"], env=_environment(config))
    found = re.findall(r"^'([^']+)' (\S+) \d+ SHA256:([0-9a-f]{64})$", output, re.MULTILINE)
    return sorted((Remote(file, sha256) for _, file, sha256 in found), key=lambda r: r.file)


def packages(suite: str, arch: str, names: list[str]) -> list[Path]:
    """The .deb files of `names`, without their dependencies. arch: amd64 or arm64."""
    config = _apt(suite, arch)
    wanted = _listed(config, ["download", *names])
    if len(wanted) != len(names):
        raise CiError(f"Debian {suite} {arch} offers {len(wanted)} of the {len(names)} packages {names}")
    home = _fetch(config, ["download", *names], wanted, f"debs/{suite}-{arch}")
    return [home / remote.file for remote in wanted]


def source(suite: str, package: str, sha256: str | None = None) -> Path:
    """The upstream tarball of a source package. With sha256, any other content is an error."""
    config = _apt(suite, "amd64")
    arguments = ["source", "--tar-only", "--download-only", package]
    wanted = _listed(config, arguments)
    if len(wanted) != 1:
        raise CiError(f"Debian {suite} offers {len(wanted)} upstream tarballs of {package}, expected 1")
    if sha256 and wanted[0].sha256 != sha256:
        raise CiError(
            f"Debian {suite}'s {wanted[0].file} has sha256 {wanted[0].sha256}, expected {sha256} "
            "(recipe/variants.yaml): Debian has another version now; add a row for it, or use another"
        )
    return _fetch(config, arguments, wanted, f"sources/{package}") / wanted[0].file


def check_sha256(path: Path, expected: str) -> None:
    """Raises CiError when the file's sha256 is another one."""
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise CiError(f"{path} has sha256 {actual}, expected {expected}: delete it and try again")


def unpack(debs: list[Path], target: Path) -> None:
    """Unpacks .deb files into a folder, with absolute links made relative to it."""
    for deb in debs:
        subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], check=True)
    for path in target.rglob("*"):
        if path.is_symlink() and (link := path.readlink()).is_absolute():
            path.unlink()
            path.symlink_to(Path(*[".."] * (len(path.relative_to(target).parts) - 1)) / link.relative_to("/"))
