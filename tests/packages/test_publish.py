# SPDX-License-Identifier: MIT
"""Channels: published whole or not at all, signed, served, copied, bundled."""

import functools
import html.parser
import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aclpkg.base import archives, environment
from aclpkg.base.hashes import sha256
from aclpkg.base.messages import CiError
from aclpkg.base.paths import DIST, ROOT
from aclpkg.base.pins import SITE_PACKAGES
from aclpkg.base.processes import run
from aclpkg.build import dist
from aclpkg.release import bundle, signed_channel
from rattler.exceptions import SolverError

from ..conftest import ACL_VERSION

KILLS = 50
FLIPS = 200
EPOCH = 1_000_000_000
CPUS = {"armv8_2a": "neoverse_n1", "neoverse_v1": "neoverse_v1"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a signing key and the file that says whose it is."""
    home = tmp_path_factory.mktemp("keys")
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", home / "key"])
    (home / "signers").write_text(f"releases@example.org {(home / 'key.pub').read_text()}")
    return home


@pytest.fixture(scope="module")
def packages() -> list[Path]:
    return sorted(dist.CHANNEL.glob("*/*.conda"))


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory, packages: list[Path], keys: Path) -> Path:
    """A published channel; tests that change it take a copy."""
    target = tmp_path_factory.mktemp("published") / "channel"
    signed_channel.publish(packages, target, keys / "key")
    return target


@pytest.fixture
def copied(channel: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(channel, tmp_path / "copy", symlinks=True))


def verify(channel: Path, keys: Path, seen: Path | None = None) -> subprocess.CompletedProcess[str]:
    """seen: the folder with what the user has verified before; without, nothing."""
    words = ["bash", ROOT / "ci/verify.sh", channel, keys / "signers"]
    with tempfile.TemporaryDirectory() as nothing:
        state = {**os.environ, "XDG_STATE_HOME": str(seen or nothing)}
        return subprocess.run(words, capture_output=True, text=True, check=False, env=state)


def altered(package: Path, target: Path, change: Callable[[Path], None], name: str = "") -> Path:
    """A copy of a package below `target` with changed files, and a name of its own if one is given."""
    root = target / "unpacked"
    shutil.rmtree(root, ignore_errors=True)
    archives.unpack_package(package, root)
    change(root)
    copy = target / package.parent.name / (name or package.name)
    copy.parent.mkdir(exist_ok=True)
    archives.pack_package(root, copy, EPOCH)
    return copy


def acl(packages: list[Path]) -> Path:
    return next(p for p in packages if p.name.startswith(f"arm-compute-library-{ACL_VERSION}-armv8_2a_qlinear"))


def test_publishing_again_changes_nothing(copied: Path, packages: list[Path], keys: Path) -> None:
    before = {f: f.read_bytes() for f in copied.rglob("*") if f.is_file() and ".index" not in f.parts}
    assert signed_channel.publish(packages, copied, keys / "key") == []
    assert before == {f: f.read_bytes() for f in copied.rglob("*") if f.is_file() and ".index" not in f.parts}
    assert len(list((copied / ".index").iterdir())) == 2


def test_published_file_is_never_replaced(copied: Path, packages: list[Path], keys: Path, tmp_path: Path) -> None:
    old = acl(packages)
    other = altered(old, tmp_path, lambda root: (root / "new").touch())
    before = {f: f.read_bytes() for f in copied.rglob("*") if f.is_file()}
    with pytest.raises(CiError, match="never replaced") as caught:
        signed_channel.publish([*packages, other], copied, keys / "key")
    assert sha256(old) in str(caught.value) and sha256(other) in str(caught.value)
    assert before == {f: f.read_bytes() for f in copied.rglob("*") if f.is_file()}


def test_foreign_channel_is_left_alone(keys: Path, packages: list[Path], tmp_path: Path) -> None:
    foreign = Path(shutil.copytree(dist.CHANNEL, tmp_path / "foreign"))
    with pytest.raises(CiError, match="did not make"):
        signed_channel.publish(packages, foreign, keys / "key")


def test_killed_at_any_moment(channel: Path, packages: list[Path], keys: Path, tmp_path: Path) -> None:
    """The channel solves and installs as before, or as after, and is signed; publishing again completes it."""
    helpers = [package for package in packages if not package.name.startswith("acl-qlinear")]
    before = tmp_path / "before"
    signed_channel.publish(helpers, before, keys / "key")
    upstream = dist.upstream_of_built_channel()
    words = [sys.executable, "-m", "aclpkg.commands.publish", "--key", str(keys / "key")]
    killed = Path(shutil.copytree(before, tmp_path / "timed", symlinks=True))

    def start(target: Path) -> tuple[subprocess.Popen[str], float]:
        """Starts a publish, and returns when it has begun."""
        process = subprocess.Popen([*words, str(target)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr and "publishing" in process.stderr.readline()
        return process, time.monotonic()

    process, began = start(killed)
    process.wait()
    takes = time.monotonic() - began
    chance = random.Random(5)
    seen = {"before": 0, "after": 0}
    for kill in range(KILLS):
        shutil.rmtree(killed)
        shutil.copytree(before, killed, symlinks=True)
        process, began = start(killed)
        time.sleep(max(0.0, chance.uniform(0, takes) - (time.monotonic() - began)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = verify(killed, keys)
        assert done.returncode == 0, done.stderr
        index = json.loads((killed / "linux-aarch64/repodata.json").read_text())["packages.conda"]
        names = {record["name"] for record in index.values()}
        assert all((killed / "linux-aarch64" / name).is_file() for name in index)
        seen["after" if "acl-qlinear" in names else "before"] += 1
        assert environment.resolve([killed.as_uri(), *upstream], ["arm-compute-library"], "neoverse_n1")
        if "acl-qlinear" not in names:
            with pytest.raises(SolverError):
                environment.resolve([killed.as_uri(), *upstream], ["acl-qlinear"], "neoverse_n1")
        if kill % 10 == 0:
            home = tmp_path / "prefix"
            environment.create(home, [killed.as_uri(), *upstream], ["arm-compute-library"], "neoverse_n1")
            assert (home / "lib/libarm_compute.so").is_file()
    print(seen)
    assert seen["before"] > KILLS // 10, seen
    signed_channel.publish(packages, killed, keys / "key")
    assert verify(killed, keys).stdout.endswith(f"{len(manifest(killed))} files, signed by releases@example.org\n")
    assert manifest(killed).keys() == manifest(channel).keys()
    assert environment.resolve([killed.as_uri(), *upstream], ["acl-qlinear"], "neoverse_n1")


def manifest(channel: Path) -> dict[str, str]:
    lines = (channel / "SHA256SUMS").read_text().splitlines()
    return {line[66:]: line[:64] for line in lines}


def test_every_flipped_bit_is_caught(copied: Path, keys: Path) -> None:
    chance = random.Random(7)
    assert verify(copied, keys).returncode == 0
    files = [copied / name for name in [*manifest(copied), "SHA256SUMS"]]
    kinds = [
        [file for file in files if file.suffix == ".conda"],
        [file for file in files if "repodata" in file.name],
        [copied / "SHA256SUMS"],
        files,
    ]
    for flip in range(FLIPS):
        file = chance.choice(kinds[flip % len(kinds)])
        content = bytearray(file.read_bytes())
        place = chance.randrange(len(content) * 8)
        content[place // 8] ^= 1 << place % 8
        whole = file.read_bytes()
        file.write_bytes(content)
        done = verify(copied, keys)
        assert done.returncode != 0 and "error: " in done.stderr, (file, place, done.stdout)
        file.write_bytes(whole)
    assert verify(copied, keys).returncode == 0


def test_other_signatures_are_refused(copied: Path, keys: Path, tmp_path: Path) -> None:
    key = tmp_path / "other"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])
    names = copied / "SHA256SUMS", copied / "SHA256SUMS.sig"
    for signing_key, namespace in ((key, signed_channel.NAMESPACE), (keys / "key", "file")):
        names[1].resolve().unlink()
        run(["ssh-keygen", "-q", "-Y", "sign", "-f", signing_key, "-n", namespace, names[0].resolve()])
        done = verify(copied, keys)
        assert done.returncode == 1 and "is not signed by anyone in" in done.stderr, done.stdout
    names[1].resolve().unlink()
    assert "has no SHA256SUMS and SHA256SUMS.sig" in verify(copied, keys).stderr


def test_added_index_is_refused(copied: Path, keys: Path) -> None:
    (copied / "noarch/repodata_shards.msgpack.zst").write_bytes(b"another index")
    done = verify(copied, keys)
    assert done.returncode == 1 and "repodata_shards.msgpack.zst is not in SHA256SUMS" in done.stderr


def test_old_copy_is_refused(packages: list[Path], keys: Path, tmp_path: Path) -> None:
    """A replay: signed, whole, and without what was published since."""
    channel, other, seen = tmp_path / "channel", tmp_path / "other", tmp_path / "seen"
    few = [package for package in packages if package.parent.name == "noarch"]
    signed_channel.publish(few, channel, keys / "key")
    old = Path(shutil.copytree(channel, tmp_path / "old", symlinks=True))
    signed_channel.publish(packages, channel, keys / "key")
    serial, date = (re.findall(f"{what} (.*)", (channel / "SERIAL").read_text())[0] for what in ("serial", "date"))
    for _ in range(2):
        done = verify(channel, keys, seen)
        assert done.returncode == 0 and f"serial {serial}, {date}\n" in done.stdout, done.stderr
    done = verify(old, keys, seen)
    assert done.returncode == 1 and f"and serial {serial} of {date} was seen: it is an old copy" in done.stderr
    assert "verified" not in done.stdout
    # Another channel of the same signer, and another user.
    signed_channel.publish(few, other, keys / "key")
    assert verify(other, keys, seen).returncode == 0 and verify(old, keys).returncode == 0


def test_serial_rises_whatever_the_clock_says(copied: Path, packages: list[Path], keys: Path) -> None:
    before = (copied / "SERIAL").read_text()
    later = int(re.findall("serial (.*)", before)[0]) + 10**9
    index = copied / ".index/current"
    (index / "SERIAL").write_text(before.replace(re.findall("serial (.*)", before)[0], str(later)))
    (index / "SHA256SUMS").unlink()
    signed_channel.publish(packages, copied, keys / "key")
    assert f"serial {later + 1}\n" in (copied / "SERIAL").read_text() and verify(copied, keys).returncode == 0


class Links(html.parser.HTMLParser):
    """The addresses that a page leads to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_lists_every_package(channel: Path, packages: list[Path]) -> None:
    page = Links()
    page.feed((channel / "index.html").read_text())
    assert {p.name for p in packages} == {Path(a).name for a in page.addresses if a.endswith(".conda")}
    for address in page.addresses:
        assert (channel / address).is_file(), address
    for package in packages:
        assert f"{package.parent.name}/{package.name}.cdx.json" in page.addresses
        assert f"{package.parent.name}/{package.name}.intoto.json" in page.addresses
        assert sha256(package) in page.text
    assert "conda install -c CHANNEL" in page.text and "script" not in (channel / "index.html").read_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(served: str, channel: Path, tmp_path: Path, width: int) -> None:
    """On a phone and on a desktop: nothing sticks out, every row is seen. Pictures are left in dist/channel-page."""
    # What the browser thinks of the page, asked by a script that is the test's.
    asks = "<script>document.title = [document.documentElement.scrollWidth, innerWidth, "
    asks += "[...document.querySelectorAll('tbody tr')].filter(row => row.offsetHeight > 9).length].join(' ')</script>"
    probe = channel / "probe.html"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += [f"--user-data-dir={tmp_path}", f"--window-size={width},900", "--hide-scrollbars"]
    pictures = DIST / "channel-page"
    pictures.mkdir(exist_ok=True)
    try:
        probe.write_text((channel / "index.html").read_text() + asks)
        printed = run(["chromium", *options, "--dump-dom", f"{served}/probe.html"], cwd=tmp_path)
    finally:
        probe.unlink()
    run(["chromium", *options, f"--screenshot={pictures}/{width}.png", f"{served}/index.html"], cwd=tmp_path)
    content, window, rows = map(int, re.findall(r"<title>(\d+) (\d+) (\d+)</title>", printed)[0])
    assert content <= window and rows == len(list(channel.glob("*/*.conda")))
    assert (pictures / f"{width}.png").stat().st_size > 10_000


def test_two_at_once(packages: list[Path], keys: Path, tmp_path: Path) -> None:
    target = tmp_path / "channel"
    words = [sys.executable, "-m", "aclpkg.commands.publish", "--key", str(keys / "key"), str(target)]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    printed = sorted(process.communicate()[0] for process in both)
    assert [int(re.findall(r": (\d+) packages published", text)[0]) for text in printed] == [0, len(packages)]
    assert verify(target, keys).returncode == 0


def test_full_disk(packages: list[Path], keys: Path, small_disk: Path) -> None:
    channel = small_disk / "channel"
    signed_channel.publish([package for package in packages if package.parent.name == "noarch"], channel, keys / "key")
    before = manifest(channel)
    (small_disk / "filler").write_bytes(bytes(39 * 2**20))
    with pytest.raises(CiError, match=r"No space left on device.*the channel is as it was"):
        signed_channel.publish(packages, channel, keys / "key")
    assert manifest(channel) == before and verify(channel, keys).returncode == 0
    assert not list(channel.glob("*/.*.partial"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(channel: Path) -> Iterator[str]:
    """The address of an ordinary web server with the channel."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(channel)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("microarchitecture", CPUS)
def test_installs_over_http(served: str, tmp_path: Path, microarchitecture: str) -> None:
    records = environment.create(
        tmp_path / "prefix", [served, *dist.upstream_of_built_channel()], ["acl-qlinear"], CPUS[microarchitecture]
    )
    ours = {r.name.normalized: r for r in records if str(r.url).startswith(served)}
    assert all(microarchitecture in str(ours[name].build) for name in ("acl-qlinear", "arm-compute-library"))
    assert (tmp_path / "prefix" / SITE_PACKAGES / "acl_qlinear/_C.so").is_file()


def test_bundle_needs_no_other_channel(keys: Path, tmp_path: Path) -> None:
    archive = tmp_path / "bundle.tar"
    channels = [dist.CHANNEL.as_uri(), *dist.upstream_of_built_channel()]
    bundle.bundle(archive, ["acl-qlinear"], channels, keys / "key")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.tar"]
    with tarfile.open(archive) as content:
        assert all(member.isfile() or member.isdir() for member in content)
    run(["tar", "-xf", archive, "-C", tmp_path])
    home = tmp_path / bundle.NAME
    assert verify(home, keys).returncode == 0
    for microarchitecture, cpu in CPUS.items():
        records = environment.resolve([home.as_uri()], ["acl-qlinear"], cpu)
        assert all(str(record.url).startswith(home.as_uri()) for record in records)
        assert any(microarchitecture in str(record.build) for record in records)
    environment.create(tmp_path / "prefix", [home.as_uri()], ["acl-qlinear"], CPUS["neoverse_v1"])
    assert (tmp_path / "prefix" / SITE_PACKAGES / "torch/lib/libtorch_cpu.so").is_file()


def test_channel_as_a_copied_folder(channel: Path, tmp_path: Path) -> None:
    """Also where links have become files."""
    for name, links in (("links", True), ("files", False)):
        copy = Path(shutil.copytree(channel, tmp_path / name, symlinks=links))
        assert environment.resolve([copy.as_uri(), *dist.upstream_of_built_channel()], ["acl-qlinear"], "neoverse_v1")


def test_abi_break_is_refused(copied: Path, packages: list[Path], keys: Path, tmp_path: Path) -> None:
    """A build with another number, of the same version, that has lost a function, or whose headers have changed."""
    old = acl(packages)
    again = re.sub(r"_\d+\.conda$", "_7.conda", old.name)

    def number(root: Path) -> None:
        index = json.loads((root / "info/index.json").read_text())
        index |= {"build_number": 7, "build": re.sub(r"_\d+$", "_7", index["build"])}
        (root / "info/index.json").write_text(json.dumps(index))

    def lose_a_function(root: Path) -> None:
        number(root)
        library = next((root / "lib").glob("libarm_compute.so.*.*"))
        library.write_bytes(library.read_bytes().replace(b"_ZN11arm_compute6Tensor", b"_ZN11arm_compute6Tensir"))

    def change_a_header(root: Path) -> None:
        number(root)
        header = root / "include/arm-compute-library/arm_compute/core/TensorShape.h"
        header.write_text(header.read_text() + "// changed\n")

    for change, message in (
        (lose_a_function, "[D] _ZN11arm_compute6Tensor"),
        (change_a_header, "arm_compute/core/TensorShape.h has changed"),
    ):
        with pytest.raises(CiError, match="is no replacement for") as caught:
            signed_channel.publish([altered(old, tmp_path, change, again)], copied, keys / "key")
        assert message in str(caught.value), caught.value
    assert signed_channel.publish([altered(old, tmp_path, number, again)], copied, keys / "key") == [again]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["/tmp/channel"], "--key is missing, expected a private OpenSSH key"),
        (["/tmp/channel", "--from", "/nowhere"], "/nowhere has no packages; run ci/build.sh"),
    ],
)
def test_bad_argument(arguments: list[str], message: str) -> None:
    words = [sys.executable, "-m", "aclpkg.commands.publish", *arguments]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr, done.stderr
