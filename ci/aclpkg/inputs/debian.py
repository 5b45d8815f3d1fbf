# SPDX-License-Identifier: MIT
"""Files of any Debian release and architecture, without touching the machine's apt.

ci/debian.lock is their source: for each file its sha256 and its path in Debian's archive. A file
is downloaded by that path, from the machine's mirror or from another place that still has it, and
cached by its hash. A release's signed index is asked by ci/lock.sh, and for a file that no place
has any more: then what the index offers in its place is used, and said.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..base.cache import cached_dir, find_cached
from ..base.files import holding_lock, write_atomically
from ..base.hashes import sha256 as sha256_of
from ..base.messages import CiError, log
from ..base.paths import CACHE, ROOT
from ..base.processes import run

LOCK = ROOT / "ci/debian.lock"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FRESH_SECONDS = 600
# What apt may call the machine's release instead of by its name.
SUITES = ("stable", "oldstable", "oldoldstable", "testing")
# "1", as --locked sets it: a file that no place has any more is an error.
ONLY_LOCKED = "ACL_QLINEAR_ONLY_LOCKED"
# Addresses of more archives of Debian's, separated by spaces.
ARCHIVES = "ACL_QLINEAR_DEBIAN_ARCHIVES"
# How apt says that a mirror answers, and has no such file.
GONE = r"\b(404|410)\b|has another sha256|File not found"
# In the folder of a file that stands in for a locked one: which.
REPLACES = "replaces"


class NoPlaceError(CiError):
    """No place has a file that ci/debian.lock has."""


@dataclass(frozen=True)
class DebianFile:
    """A package or an upstream tarball in Debian's archive. arch: amd64, arm64 or source."""

    suite: str
    arch: str
    path: str
    sha256: str

    @property
    def package(self) -> str:
        """The name of the package."""
        return self.file_name.split("_")[0]

    @property
    def file_name(self) -> str:
        """The name of the file."""
        return self.path.rsplit("/", 1)[1]

    def __str__(self) -> str:
        return f"{self.suite}/{self.arch}/{self.file_name}"


def packages(suite: str, arch: str, names: list[str]) -> list[Path]:
    """Returns the .deb files of `names`, without their dependencies. arch: amd64 or arm64.

    Raises CiError for a name that ci/debian.lock does not have, and for a file that cannot be had.
    """
    wanted = [_pinned(suite, arch, name) for name in names]
    if missing := [file for file in wanted if not _cached(file)]:
        log(f"downloading {len(missing)} packages of Debian {suite} for {arch}")
    return [_obtain(file) for file in wanted]


def source(suite: str, package: str) -> Path:
    """Returns the upstream tarball of a source package in ci/debian.lock."""
    return _obtain(_pinned(suite, "source", package))


def exact_source(address: str, sha256: str) -> Path:
    """Returns the upstream tarball at `address`, debian:SUITE/FILE, with this sha256 and no other.

    Raises CiError where no place has it.
    """
    suite, name = address.removeprefix("debian:").split("/")
    package = name.split("_")[0]
    # Debian's policy for its pool: a folder per first letter, or "lib" and a letter.
    letter = package[: 4 if package.startswith("lib") else 1]
    return _obtain_locked(DebianFile(suite, "source", f"pool/main/{letter}/{package}/{name}", sha256))


def replaced_file(path: Path) -> str | None:
    """Returns which file of ci/debian.lock `path` stands in for; None where it is the locked one itself."""
    note = path.with_name(REPLACES)
    return note.read_text() if note.exists() else None


def unpack(debs: list[Path], target: Path) -> None:
    """Unpacks .deb files into a folder, with absolute links made relative to it."""
    for deb in debs:
        run(["dpkg-deb", "-x", deb, target])
    for path in target.rglob("*"):
        if path.is_symlink() and (link := path.readlink()).is_absolute():
            path.unlink()
            path.symlink_to(Path(*[".."] * (len(path.relative_to(target).parts) - 1)) / link.relative_to("/"))


# The lock


@cache
def pinned_files() -> list[DebianFile]:
    """Returns what ci/debian.lock has."""
    found = []
    for number, line in enumerate(LOCK.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            fields = re.fullmatch(r"([0-9a-f]{64})\s+([^\s/]+)/([^\s/]+)\s+(\S+/\S+)\s*", line)
            if not fields:
                raise CiError(f"{LOCK}, line {number} is {line!r}, expected SHA256 SUITE/ARCHITECTURE PATH")
            sha256, suite, arch, path = fields.groups()
            found.append(DebianFile(suite, arch, path, sha256))
    return found


def _pinned(suite: str, arch: str, package: str) -> DebianFile:
    for file in pinned_files():
        if (file.suite, file.arch, file.package) == (suite, arch, package):
            return file
    raise CiError(f"{LOCK} has no {package} of {suite}/{arch}: run ci/lock.sh and commit what it changes")


def write_lock(files: list[DebianFile]) -> None:
    """Writes ci/debian.lock."""
    lines = sorted(f"{file.sha256}  {file.suite}/{file.arch}  {file.path}\n" for file in files)
    lines.sort(key=lambda line: line.split()[1:])
    date = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    head = (
        "# What is taken from Debian: sha256, release and architecture, path in the archive. Written by ci/lock.sh.\n"
        f"# date: {date}\n"
    )
    write_atomically(LOCK, head + "".join(lines))
    pinned_files.cache_clear()


def _lock_date() -> str:
    """When the files were in Debian's archive, in the form of the snapshot archive."""
    found = re.search(r"^# date: (\S+)$", LOCK.read_text(), re.MULTILINE)
    if not found:
        raise CiError(f"{LOCK} has no line '# date: …': run ci/lock.sh")
    return found[1]


# Downloads by path


def _cached(file: DebianFile) -> Path | None:
    home = find_cached(f"debian/{file.package}", file.sha256)
    return home / file.file_name if home else None


def _obtain(file: DebianFile) -> Path:
    """Returns the locked file, or, where no place has it and that is allowed, what stands in for it."""
    name = f"debian-not-locked/{file.package}"
    only_locked = os.environ.get(ONLY_LOCKED) == "1"
    stand_in = None if _cached(file) else find_cached(name, file.sha256)
    if only_locked or not stand_in:
        try:
            return _obtain_locked(file)
        except NoPlaceError as error:
            if only_locked:
                raise
            now = _offered_instead(file, error)
            if now.sha256 == file.sha256:
                return _obtain_locked(now)
            stand_in = cached_dir(name, file.sha256, lambda target: _fetch_stand_in(file, now, target))
    (path,) = (path for path in stand_in.iterdir() if path.name != REPLACES)
    log(f"not locked: no place has {file} any more, {path.name} is used in its place; ci/lock.sh pins it")
    return path


def _obtain_locked(file: DebianFile) -> Path:
    home = cached_dir(f"debian/{file.package}", file.sha256, lambda target: _fetch(file, target))
    path = home / file.file_name
    check_sha256(path, file.sha256)
    return path


def _fetch(file: DebianFile, target: Path) -> None:
    reasons = {}
    for address in _addresses(file):
        reasons[address] = _download(address, target / file.file_name, file.sha256)
        if not reasons[address]:
            return
    tried = "\n".join(f"  {address}: {reason}" for address, reason in reasons.items())
    mirrors = _machine_archives()[0]
    # A mirror that is down has not moved on.
    if any(address.startswith(mirrors) and not re.search(GONE, reason) for address, reason in reasons.items()):
        raise CiError(f"Debian's {file} cannot be downloaded:\n{tried}\ncheck the network, and try again")
    raise NoPlaceError(
        f"no place has Debian's {file} with sha256 {file.sha256}:\n{tried}\n"
        f"run ci/lock.sh and commit what it changes, or set {ARCHIVES} to the address of an archive that has it"
    )


@cache
def _apt_helper() -> str:
    """apt's own downloader, which lies beside its methods."""
    if not shutil.which("apt-config"):
        raise _no_apt()
    methods = run(["apt-config", "shell", "methods", "Dir::Bin::methods/f"]).strip().partition("=")[2]
    return str(Path(methods.strip("'")).parent / "apt-helper")


def _download(address: str, path: Path, sha256: str | None = None) -> str:
    """Downloads with apt's own settings, proxies among them; returns why that failed, or nothing."""
    words = [
        _apt_helper(),
        "-o",
        "APT::Sandbox::User=",
        "-o",
        "Acquire::Retries=2",
        "download-file",
        address,
        str(path),
    ]
    try:
        done = subprocess.run(
            [*words, *([f"SHA256:{sha256}"] if sha256 else [])], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise _no_apt() from None
    if done.returncode == 0:
        return ""
    path.unlink(missing_ok=True)
    errors = [line.removeprefix("E: ").strip() for line in done.stderr.splitlines() if line.startswith("E: ")]
    return "has another sha256" if "Hash Sum mismatch" in done.stderr else (errors or ["apt-helper failed"])[0]


def check_sha256(path: Path, expected: str) -> None:
    """Raises CiError when the file's sha256 is another one."""
    actual = sha256_of(path)
    if actual != expected:
        raise CiError(f"{path} has sha256 {actual}, expected {expected}: delete its folder and try again")


# Places


def _addresses(file: DebianFile) -> Iterator[str]:
    """Yields where the file may be: first where the release is now, then where old files are kept."""
    mirrors, security = _machine_archives()
    # The security archive has the pool's files below another folder.
    security_path = file.path.replace("pool/", "pool/updates/", 1)
    yield from (f"{mirror}/{file.path}" for mirror in mirrors)
    yield from (f"{archive}/{security_path}" for archive in security)
    yield from (f"{archive}/{file.path}" for archive in _given_archives())
    if domain := _debian_domain():
        snapshots = f"{_scheme()}://snapshot.{domain}/archive"
        yield f"{_scheme()}://archive.{domain}/debian/{file.path}"
        yield f"{snapshots}/debian/{_lock_date()}/{file.path}"
        yield f"{snapshots}/debian-security/{_lock_date()}/{security_path}"


def _given_archives() -> list[str]:
    return [address.rstrip("/") for address in os.environ.get(ARCHIVES, "").split()]


@cache
def _machine_archives() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Debian's archives, and those of security updates, in the machine's own apt configuration.

    Other archives may have a release of the same name: what comes from them must have the right hash, too.
    """
    if not shutil.which("apt-get"):
        raise _no_apt()
    words = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)"]
    release = read_os_release().get("VERSION_CODENAME", "")
    archives, security = dict[str, None](), dict[str, None]()
    for line in run(words).splitlines():
        address, _, place = line.partition("|")
        name, _, component = place.partition("|")
        if component == "main":
            found = archives if name in (release, *SUITES) else security if name.endswith("-security") else {}
            found.update(dict.fromkeys(_usable(address)))
    if not archives:
        raise CiError(f"apt on this machine names no archive for Debian {release} main on the web")
    return tuple(archives), tuple(security)


def _usable(address: str) -> list[str]:
    """Returns the addresses of files that apt's address of an archive stands for; none for a CD."""
    if address.startswith("mirror+file:"):
        mirrors = Path(urlsplit(address.removeprefix("mirror+")).path.rstrip("/"))
        words = [line.split()[0] for line in mirrors.read_text().splitlines() if line.strip()]
        return [found for word in words if not word.startswith("#") for found in _usable(word)]
    return [address.rstrip("/")] if address.startswith(("http:", "https:", "file:")) else []


def _scheme() -> str:
    """What the machine reaches its mirror by."""
    return "https" if _machine_archives()[0][0].startswith("https:") else "http"


def _no_apt() -> CiError:
    return CiError(
        "program 'apt-get' is missing: without it, packages must come from a conda channel; pass --channel URL "
        "(conda-forge, say)"
    )


def _debian_domain() -> str:
    """The domain that Debian's archives of old releases and files are in, as the machine's system names it."""
    system = read_os_release()
    host = urlsplit(system.get("HOME_URL", "")).hostname or ""
    return host.removeprefix("www.") if system.get("ID") == "debian" else ""


def read_os_release() -> dict[str, str]:
    """Returns what the machine says of its system: ID, VERSION_CODENAME, HOME_URL and the like."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}


# A release's signed index


@cache
def _archive_of(suite: str) -> str:
    """The first archive that has the release now."""
    archives = [*_machine_archives()[0], *_given_archives()]
    if domain := _debian_domain():
        archives.append(f"{_scheme()}://archive.{domain}/debian")
    reasons = []
    home = CACHE / "apt"
    home.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        release = home / f"{suite}.{os.getpid()}.Release"
        reason = _download(f"{archive}/dists/{suite}/Release", release)
        if not reason and "Origin: Debian\n" not in release.read_text():
            reason = "is not Debian's"
        release.unlink(missing_ok=True)
        if not reason:
            return archive
        reasons.append(f"  {archive}: {reason}")
    raise CiError(
        f"no archive has Debian {suite}:\n" + "\n".join(reasons) + f"\nset {ARCHIVES} to the address of one that has it"
    )


def _acquire_settings() -> str:
    """How the machine's own apt downloads: its proxies, and the files with its passwords."""
    dump = run(["apt-config", "dump"]).splitlines()
    etc = run(["apt-config", "shell", "netrc", "Dir::Etc::netrc/f", "parts", "Dir::Etc::netrcparts/d"])
    names = {"netrc": "Dir::Etc::netrc", "parts": "Dir::Etc::netrcparts"}
    found = (line.partition("=") for line in etc.splitlines())
    passwords = [f'{names[name]} "{value.strip(chr(39))}";' for name, _, value in found if name in names]
    return "\n".join([*(line for line in dump if line.startswith("Acquire::")), *passwords])


@cache
def _apt(suite: str, arch: str) -> dict[str, str]:
    """The environment of an apt for `suite` and `arch`, with package lists that are at most ten minutes old."""
    archive = _archive_of(suite)
    home = CACHE / "apt" / f"{suite}-{arch}"
    for name in ("etc", "state/lists/partial", "cache/archives/partial", "log"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "status").touch()
    config, updated = home / "apt.conf", home / "updated"
    texts = {
        home / "etc/debian.sources": f"Types: deb deb-src\nURIs: {archive}\nSuites: {suite}\nComponents: main\n"
        f"Signed-By: {KEYRING}\n",
        config: f"""
        {_acquire_settings()}
        Dir::Etc "{home}/etc"; Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "{home}/etc";
        Dir::State "{home}/state"; Dir::State::status "{home}/status";
        Dir::Cache "{home}/cache"; Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache ""; Dir::Log "{home}/log";
        APT::Architecture "{arch}"; APT::Architectures {{ "{arch}"; }};
        APT::Sandbox::User ""; Acquire::Languages "none"; Acquire::Retries "3";
        """,
    }
    environment = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}
    # apt reads its lists without a lock, and does not wait for the one it writes them with.
    with holding_lock(home.with_name(f"{home.name}.lock")):
        for file, text in texts.items():
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
                updated.unlink(missing_ok=True)
        if not updated.exists() or time.time() - updated.stat().st_mtime > FRESH_SECONDS:
            # Without this an archive that is not reached is a warning.
            run(["apt-get", "update", "-o", "APT::Update::Error-Mode=any"], env=environment)
            updated.touch()
    return environment


def apt_candidates(suite: str, arch: str, names: list[str]) -> list[DebianFile]:
    """Returns what the release's index has of `names`, packages, or upstream tarballs where arch is source.

    Raises CiError where a name is not there.
    """
    action = ["source", "--tar-only", "--download-only"] if arch == "source" else ["download"]
    environment, archive = _apt(suite, "amd64" if arch == "source" else arch), _archive_of(suite)
    printed = run(["apt-get", *action, *names, "--print-uris"], env=environment)
    found = {}
    for address, sha256 in re.findall(r"^'([^']+)' \S+ \d+ SHA256:([0-9a-f]{64})$", printed, re.MULTILINE):
        file = DebianFile(suite, arch, unquote(address.removeprefix(archive)).lstrip("/"), sha256)
        found[file.package] = file
    if missing := [name for name in names if name not in found]:
        raise CiError(f"Debian {suite} {arch} does not offer {', '.join(missing)}")
    return [found[name] for name in names]


def _offered_instead(file: DebianFile, error: NoPlaceError) -> DebianFile:
    """Returns what the release's index has in the place of a file that no place has."""
    try:
        return apt_candidates(file.suite, file.arch, [file.package])[0]
    except CiError as why:
        raise CiError(f"{error}\n{why}") from why


def _fetch_stand_in(file: DebianFile, now: DebianFile, target: Path) -> None:
    if reason := _download(f"{_archive_of(file.suite)}/{now.path}", target / now.file_name, now.sha256):
        raise CiError(f"{_archive_of(file.suite)} offers {now} and does not send it: {reason}; try again")
    (target / REPLACES).write_text(str(file))
