# SPDX-License-Identifier: MIT
"""Debian's files, from a mirror as it is, that has moved on, that lost a release, and that lies.

The mirrors are folders with signed indexes, served on this machine; apt, its helper and the signatures are real.
"""

import contextlib
import dataclasses
import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aclpkg.base import cache
from aclpkg.base.messages import CiError
from aclpkg.inputs import bootstrap, debian, debian_lock
from aclpkg.inputs.debian import DebianFile

ARCH = "arm64"


class Archive:
    """A small Debian archive below an address."""

    def __init__(self, root: Path, address: str, home: Path) -> None:
        self.root, self.address, self._gnupg = root, address, home / "gnupg"

    def add(self, suite: str, package: str, version: str) -> DebianFile:
        """Builds a package, puts it into the pool, and makes it the one that the suite's index offers."""
        tree = self.root.parent / f"tree-{package}-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "usr").mkdir()
        (tree / "usr/version").write_text(version)
        control = f"Package: {package}\nVersion: {version}\nArchitecture: {ARCH}\nMaintainer: a <a@example.org>\n"
        (tree / "DEBIAN/control").write_text(f"{control}Description: a test\n")
        path = f"pool/main/{package[0]}/{package}/{package}_{version}_{ARCH}.deb"
        deb = self.root / path
        deb.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
        shutil.rmtree(tree)
        content = deb.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        entry = f"{control}Filename: {path}\nSize: {len(content)}\nSHA256: {sha256}\nDescription: a test\n"
        self._publish(suite, entry)
        return DebianFile(suite, ARCH, path, sha256)

    def _publish(self, suite: str, entry: str) -> None:
        home = self.root / "dists" / suite
        shutil.rmtree(home, ignore_errors=True)
        sums = ""
        for name, text in ((f"main/binary-{ARCH}/Packages", entry), ("main/source/Sources", "")):
            (home / name).parent.mkdir(parents=True)
            (home / name).write_text(text)
            sums += f" {hashlib.sha256(text.encode()).hexdigest()} {len(text)} {name}\n"
        date = format_datetime(datetime.now(UTC), usegmt=True)
        (home / "Release").write_text(
            f"Origin: Debian\nSuite: {suite}\nCodename: {suite}\nDate: {date}\n"
            f"Architectures: {ARCH}\nComponents: main\nSHA256:\n{sums}"
        )
        gpg = ["gpg", "--homedir", self._gnupg, "--batch", "--yes", "--output", home / "InRelease", "--clearsign"]
        subprocess.run([*gpg, home / "Release"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def gnupg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a key of GnuPG's, and its public half in key.gpg."""
    home = tmp_path_factory.mktemp("keys")
    gpg = ["gpg", "--homedir", str(home / "gnupg"), "--batch"]
    (home / "gnupg").mkdir(mode=0o700)
    generate = ["--passphrase", "", "--quick-generate-key", "test@example.org", "rsa2048", "sign", "never"]
    subprocess.run([*gpg, *generate], check=True, capture_output=True)
    subprocess.run([*gpg, "--output", str(home / "key.gpg"), "--export"], check=True, capture_output=True)
    yield home
    # Its agent outlives every command otherwise.
    subprocess.run(["gpgconf", "--homedir", str(home / "gnupg"), "--kill", "all"], check=True)


class Site:
    """Archives on one local web server, and what it was asked for."""

    def __init__(self, root: Path, address: str, gnupg: Path) -> None:
        self.root, self.address, self.requests = root, address, list[str]()
        self.mirror, self.old = (Archive(root / name, f"{address}/{name}", gnupg) for name in ("debian", "old"))


@pytest.fixture
def site(tmp_path: Path, gnupg: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A machine whose apt is configured for site.mirror, with an empty cache and an empty lock."""
    root = tmp_path / "site"
    root.mkdir()
    requests: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            requests.append(self.path)

        def do_GET(self) -> None:
            if (root / "busy").exists() and self.path.endswith(".deb"):
                self.send_error(503)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = Site(root, f"http://127.0.0.1:{server.server_port}", gnupg)
    found.requests = requests

    release = debian.read_os_release()["VERSION_CODENAME"]
    (tmp_path / "etc").mkdir()
    (tmp_path / "state").mkdir()
    (tmp_path / "etc/debian.sources").write_text(
        f"Types: deb\nURIs: {found.mirror.address}\nSuites: {release}\nComponents: main\n"
    )
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "{tmp_path}/etc"; Dir::State "{tmp_path}/state";\n'
        'Acquire::Retries "0"; Acquire::http::Proxy "DIRECT";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    monkeypatch.delenv(debian.ARCHIVES, raising=False)
    monkeypatch.delenv(debian.ONLY_LOCKED, raising=False)
    monkeypatch.setattr(debian, "LOCK", tmp_path / "debian.lock")
    monkeypatch.setattr(debian, "KEYRING", gnupg / "key.gpg")
    # Debian's own archives are not asked.
    monkeypatch.setattr(debian, "read_os_release", lambda: {"VERSION_CODENAME": release})
    for module in (cache, debian):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    with fresh_process():
        yield found
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def fresh_process() -> Iterator[None]:
    """Forgets what a process finds out once."""
    caches = (debian.pinned_files, debian._machine_archives, debian._archive_of, debian._apt)
    for function in caches:
        function.cache_clear()
    yield
    for function in caches:
        function.cache_clear()


def version_in(deb: Path, target: Path) -> str:
    debian.unpack([deb], target)
    return (target / "usr/version").read_text()


def test_file_comes_by_path_and_is_cached_by_hash(site: Site) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    (first,) = debian.packages("old", ARCH, ["thing"])
    assert debian.replaced_file(first) is None
    # The index was not asked.
    assert {path.rpartition("/")[2] for path in site.requests} == {file.file_name}
    site.requests.clear()
    shutil.rmtree(site.root)
    assert debian.packages("old", ARCH, ["thing"]) == [first]
    assert not site.requests


def test_damaged_cache_is_named(site: Site) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    (path,) = debian.packages("old", ARCH, ["thing"])
    path.write_bytes(b"damaged")
    with pytest.raises(CiError, match=f"has sha256 [0-9a-f]{{64}}, expected {file.sha256}: delete its folder"):
        debian.packages("old", ARCH, ["thing"])


def test_mirror_that_moved_on(
    site: Site, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    (site.mirror.root / file.path).unlink()
    site.mirror.add("old", "thing", "2")

    monkeypatch.setenv(debian.ONLY_LOCKED, "1")
    with pytest.raises(CiError, match=r"(?s)no place has Debian's old/arm64/thing_1_arm64\.deb.*404.*run ci/lock\.sh"):
        debian.packages("old", ARCH, ["thing"])
    monkeypatch.delenv(debian.ONLY_LOCKED)

    (path,) = debian.packages("old", ARCH, ["thing"])
    assert version_in(path, tmp_path / "tree") == "2"
    assert debian.replaced_file(path) == "old/arm64/thing_1_arm64.deb"
    message = capfd.readouterr().err
    assert "not locked: no place has old/arm64/thing_1_arm64.deb any more, thing_2_arm64.deb is used" in message

    # Said every time, and without asking anybody.
    site.requests.clear()
    assert debian.packages("old", ARCH, ["thing"]) == [path]
    assert not site.requests and "not locked" in capfd.readouterr().err
    # The lock is for the file, whatever stood in for it.
    monkeypatch.setenv(debian.ONLY_LOCKED, "1")
    with pytest.raises(CiError, match="no place has"):
        debian.packages("old", ARCH, ["thing"])

    # ci/lock.sh makes it the locked one.
    debian.write_lock(debian.apt_candidates("old", ARCH, ["thing"]))
    (now,) = debian.packages("old", ARCH, ["thing"])
    assert debian.replaced_file(now) is None and version_in(now, tmp_path / "tree") == "2"


def test_archive_that_kept_the_file(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    site.mirror.add("old", "thing", "2")
    kept = site.old.root / file.path
    kept.parent.mkdir(parents=True)
    (site.mirror.root / file.path).rename(kept)
    monkeypatch.setenv(debian.ARCHIVES, f"{site.address}/nothing/ {site.old.address}")
    (path,) = debian.packages("old", ARCH, ["thing"])
    assert version_in(path, tmp_path / "tree") == "1" and debian.replaced_file(path) is None


@pytest.mark.parametrize("has_file", [True, False])
def test_release_that_left_the_mirror(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_file: bool
) -> None:
    """As an old release does when it moves to Debian's archive of old releases."""
    file = site.old.add("gone", "thing", "1")
    debian.write_lock([file])
    if not has_file:
        (site.old.root / file.path).unlink()
        site.old.add("gone", "thing", "2")
    with pytest.raises(CiError, match=rf"(?s)no archive has Debian gone:.*404.*set {debian.ARCHIVES}"):
        debian.packages("gone", ARCH, ["thing"])
    debian._archive_of.cache_clear()
    monkeypatch.setenv(debian.ARCHIVES, site.old.address)
    (path,) = debian.packages("gone", ARCH, ["thing"])
    assert version_in(path, tmp_path / "tree") == ("1" if has_file else "2")


def test_changed_file_is_never_used(site: Site, tmp_path: Path) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    deb = site.mirror.root / file.path
    deb.write_bytes(deb.read_bytes()[::-1])
    with pytest.raises(CiError, match=r"no place has Debian's old/arm64/thing_1_arm64\.deb .*\n.*: has another sha256"):
        debian.packages("old", ARCH, ["thing"])
    assert not list((tmp_path / "cache").rglob("*.deb"))


def test_index_that_nobody_signed(site: Site, tmp_path: Path, gnupg: Path) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    (site.mirror.root / file.path).unlink()
    site.mirror.add("old", "thing", "2")
    signed = site.mirror.root / "dists/old/InRelease"
    signed.write_text(signed.read_text().replace("Suite: old", "Suite: new"))
    with pytest.raises(CiError, match="apt-get update"):
        debian.packages("old", ARCH, ["thing"])


def test_exact_source_is_that_or_none(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.mirror.root / "pool/main/libt/libthing/libthing_1.orig.tar.xz"
    path.parent.mkdir(parents=True)
    path.write_text("source")
    debian.write_lock([])
    address, sha256 = "debian:old/libthing_1.orig.tar.xz", hashlib.sha256(b"source").hexdigest()
    assert debian.exact_source(address, sha256).read_text() == "source"
    with pytest.raises(CiError, match=f"(?s)no place has .* with sha256 {'0' * 64}.*has another sha256"):
        debian.exact_source(address, "0" * 64)


def test_package_that_is_not_locked(site: Site) -> None:
    debian.write_lock([])
    with pytest.raises(CiError, match=r"debian\.lock has no thing of old/arm64: run ci/lock\.sh"):
        debian.packages("old", ARCH, ["thing"])


def test_places_are_named_by_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        debian, "_machine_archives", lambda: (("http://m/debian", "http://n/debian"), ("http://m/security",))
    )
    monkeypatch.setattr(debian, "read_os_release", lambda: {"ID": "debian", "HOME_URL": "https://www.example.org/"})
    monkeypatch.setattr(debian, "LOCK", tmp_path / "debian.lock")
    monkeypatch.setenv(debian.ARCHIVES, "http://given/")
    (tmp_path / "debian.lock").write_text("# date: 20261125T120000Z\n")
    file = DebianFile("old", ARCH, "pool/main/t/thing/thing_1_arm64.deb", "0" * 64)
    assert list(debian._addresses(file)) == [
        "http://m/debian/pool/main/t/thing/thing_1_arm64.deb",
        "http://n/debian/pool/main/t/thing/thing_1_arm64.deb",
        "http://m/security/pool/updates/main/t/thing/thing_1_arm64.deb",
        "http://given/pool/main/t/thing/thing_1_arm64.deb",
        "http://archive.example.org/debian/pool/main/t/thing/thing_1_arm64.deb",
        "http://snapshot.example.org/archive/debian/20261125T120000Z/pool/main/t/thing/thing_1_arm64.deb",
        "http://snapshot.example.org/archive/debian-security/20261125T120000Z/"
        "pool/updates/main/t/thing/thing_1_arm64.deb",
    ]


def test_lock_has_what_is_used_and_no_more() -> None:
    places: dict[tuple[str, str], set[str]] = {}
    for file in debian.pinned_files():
        places.setdefault((file.suite, file.arch), set()).add(file.package)
    assert places == debian_lock.pinned_names(), "run ci/lock.sh"


def test_channel_of_what_was_not_locked_says_so(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"name": "libgcc", "suite": "old", "kind": "target", "version_of": "libgcc-s1", "packages": ["libgcc-s1"]}
    monkeypatch.setattr(bootstrap, "BOOTSTRAP", {"debian": [spec], "wheels": []})
    file = site.mirror.add("old", "libgcc-s1", "1.0")
    debian.write_lock([file])
    locked = bootstrap.channel()
    assert bootstrap.not_locked([locked.as_uri()]) == {}
    shutil.rmtree(tmp_path / "cache")
    (site.mirror.root / file.path).unlink()
    site.mirror.add("old", "libgcc-s1", "2.0")
    found = bootstrap.not_locked(["https://example.org/other", bootstrap.channel().as_uri()])
    assert found == {"old/arm64/libgcc-s1_1.0_arm64.deb": "libgcc-s1_2.0_arm64.deb"}


def test_mirror_that_is_down_has_not_moved_on(site: Site) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([file])
    (site.root / "busy").touch()
    with pytest.raises(CiError, match=r"(?s)thing_1_arm64\.deb cannot be downloaded:.* 503 .*check the network"):
        debian.packages("old", ARCH, ["thing"])
    (site.root / "busy").unlink()
    (path,) = debian.packages("old", ARCH, ["thing"])
    assert debian.replaced_file(path) is None


def test_file_that_moved_within_the_archive_is_the_locked_one(site: Site) -> None:
    file = site.mirror.add("old", "thing", "1")
    debian.write_lock([dataclasses.replace(file, path="pool/elsewhere/thing_1_arm64.deb")])
    (path,) = debian.packages("old", ARCH, ["thing"])
    assert debian.replaced_file(path) is None


def test_index_is_asked_as_the_machine_asks(site: Site, tmp_path: Path) -> None:
    site.mirror.add("old", "thing", "1")
    debian.apt_candidates("old", ARCH, ["thing"])
    (config,) = (tmp_path / "cache").glob("apt/old-arm64/apt.conf")
    assert 'Acquire::http::Proxy "DIRECT";' in config.read_text()


@pytest.mark.parametrize(
    ("lines", "archives"),
    [
        ("deb http://m/debian RELEASE main", ["http://m/debian"]),
        ("deb http://m/debian/ stable main contrib", ["http://m/debian"]),
        ("deb http://m/debian RELEASE main\ndeb http://n/debian RELEASE main", ["http://m/debian", "http://n/debian"]),
        ("deb http://m/debian RELEASE main\ndeb http://other/repo /", ["http://m/debian"]),
        ("deb cdrom:[Debian GNU/Linux 12.5.0 - Official]/ RELEASE main\ndeb http://m/d RELEASE main", ["http://m/d"]),
        ("deb mirror+file:MIRRORS RELEASE main", ["https://m/debian", "https://n/debian"]),
    ],
    ids=["plain", "stable", "two", "flat", "cdrom", "mirror list"],
)
def test_archives_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, archives: list[str]
) -> None:
    (tmp_path / "mirrors").write_text("# ours\nhttps://m/debian/\n\nhttps://n/debian priority:2\n")
    text = lines.replace("RELEASE", debian.read_os_release()["VERSION_CODENAME"])
    (tmp_path / "sources.list").write_text(text.replace("MIRRORS", str(tmp_path / "mirrors")) + "\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{tmp_path}/sources.list"; Dir::Etc::SourceParts "{tmp_path}/parts"; '
        f'Dir::State "{tmp_path}";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    with fresh_process():
        assert list(debian._machine_archives()[0]) == archives


@pytest.mark.parametrize("line", ["<<<<<<< HEAD", "0" * 64 + "  bookworm", "x" * 64 + "  bookworm/arm64  pool/a.deb"])
def test_damaged_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(debian, "LOCK", tmp_path / "debian.lock")
    (tmp_path / "debian.lock").write_text(f"# date: 20261125T120000Z\n\n{line}\n")
    with (
        fresh_process(),
        pytest.raises(CiError, match=r"debian\.lock, line 3 is .*, expected SHA256 SUITE"),
    ):
        debian.pinned_files()
