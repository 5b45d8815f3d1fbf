# SPDX-License-Identifier: MIT
"""What goes wrong on other people's machines: full disks, broken downloads, odd paths, no rights."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aclpkg.base import cache
from aclpkg.base.hashes import sha256
from aclpkg.base.messages import CiError
from aclpkg.base.paths import CACHE, DIST, ROOT
from aclpkg.base.pins import EPOCH, VARIANTS
from aclpkg.base.processes import run
from aclpkg.build import dist, normalize, packages, recipes
from aclpkg.inputs import bootstrap, debian

from ..conftest import wait_for


def test_disk_full_during_a_build(small_disk: Path) -> None:
    """The build environment does not fit. Nothing is left, and the place is free again."""
    name = "arm-compute-library"
    row, _ = recipes.packages(name, operators="qlinear")[0]
    recipe = packages.Recipe(recipes.RECIPES / name, row, [])
    upstream = dist.upstream_of_built_channel()
    before = dict(os.environ)
    with (
        pytest.raises(CiError, match=r"arm-compute-library cannot be built: .* \(\d MiB are free"),
        packages.built_package(recipe, dist.CHANNEL, upstream, small_disk / "output"),
    ):
        pass
    assert not (small_disk / "output").exists() and os.environ == before


def tiny_jobs(folder: Path, script: str) -> list[packages.Job]:
    """A build for each microarchitecture, which runs a script."""
    (folder / "tiny").mkdir()
    (folder / "tiny/recipe.yaml").write_text(
        f"""\
package: {{name: tiny, version: "1"}}
build:
  noarch: generic
  script: {script}
"""
    )
    return [
        packages.Job(packages.Recipe(folder / "tiny", {"microarchitecture": name}, []), name, dist.CHANNEL, [], {})
        for name in VARIANTS["microarchitecture"]
    ]


def test_failure_of_builds_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They run in processes of their own; the error is that of one which failed, and nothing is left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jobs = tiny_jobs(tmp_path, "echo what the build says; exit 1")
    with pytest.raises(CiError, match=r"tiny cannot be built: (?s:.)*what the build says"):
        packages.make_missing(jobs)
    left = [path for folder in ("build", "packages") for path in (tmp_path / "cache/acl-qlinear" / folder).iterdir()]
    assert len(left) == 2 * len(jobs) and all(path.suffix == ".lock" for path in left), left


def test_builds_at_the_same_time_are_killed_together(tmp_path: Path) -> None:
    script = """\
import sys
from pathlib import Path
from tests.packages.test_faults import packages, tiny_jobs
packages.make_missing(tiny_jobs(Path(sys.argv[1]), f"touch {sys.argv[1]}/started-$$; sleep 5"))
"""
    words = [sys.executable, "-c", script, str(tmp_path)]
    variables = {"PYTHONPATH": f"{ROOT}/ci:{ROOT}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with subprocess.Popen(words, env={**os.environ, **variables}) as process:
        wait_for(lambda: len(list(tmp_path.glob("started-*"))) == len(VARIANTS["microarchitecture"]))
        children = run(["ps", "-o", "pid=", "--ppid", str(process.pid)]).split()
        assert len(children) >= len(VARIANTS["microarchitecture"])
        process.kill()
    wait_for(lambda: not any(Path("/proc", child).exists() for child in children))


def test_disk_full_while_packing(small_disk: Path) -> None:
    """A package that does not fit once more beside itself stays as it was."""
    package = next(dist.CHANNEL.glob("linux-aarch64/arm-compute-library-*neoverse*.conda"))
    copy = Path(shutil.copy(package, small_disk))
    with (small_disk / "filler").open("wb") as filler:
        filler.truncate(0)
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(small_disk).free - 2**20)
    tree = normalize.read_package(package, small_disk.with_name("tree")).tree
    with pytest.raises(OSError, match="No space left"):
        normalize.repack(tree, copy, EPOCH)
    assert sha256(copy) == sha256(package) and len(list(small_disk.iterdir())) == 2


def test_disk_full_in_the_cache(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", small_disk)
    with pytest.raises(CiError, match=r"thing-.* cannot be made: .*No space left on device; make room"):
        cache.cached_dir("thing", [], lambda target: (target / "large").write_bytes(bytes(50 * 2**20)) and None)
    assert not [path for path in small_disk.iterdir() if path.is_dir()]


def test_disk_full_for_the_channel(small_disk: Path) -> None:
    """ci/build.sh as a user sees it: one line, no traceback, and the next run completes."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(39 * 2**20))
    words = ["bash", str(ROOT / "ci/build.sh"), "--no-table", "--channel", dist.upstream_of_built_channel()[0]]
    environment = {**os.environ, "ACL_QLINEAR_DIST": str(small_disk / "dist")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot be made: [Errno 28] No space left on device" in done.stderr.splitlines()[-1], done.stderr
    assert not list((small_disk / "dist").glob("*channel*"))
    filler.unlink()
    subprocess.run(words, env=environment, check=True)
    assert len(list((small_disk / "dist/channel").glob("*/*.conda"))) == len(list(dist.CHANNEL.glob("*/*.conda")))


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_damaged_source(tmp_path: Path, damage: str) -> None:
    """build_acl.sh refuses it."""
    good = recipes.debian_source(VARIANTS["acl_source"][0], VARIANTS["acl_sha256"][0])
    assert good
    content = bytearray(good.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    bad = tmp_path / good.name
    bad.write_bytes(content)
    words = ["bash", ROOT / "build_acl.sh", "--variant", "armv8.2-a", "--source", bad, "--prefix", tmp_path / "prefix"]
    (tmp_path / "cxx").write_text("#!/bin/sh\necho aarch64-test\n")
    (tmp_path / "cxx").chmod(0o755)
    tools = {"CC": str(tmp_path / "cxx"), "CXX": str(tmp_path / "cxx"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    (tmp_path / "scons").symlink_to("cxx")
    done = subprocess.run(words, env={**os.environ, **tools}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "which is not in" in done.stderr and not (tmp_path / "prefix").exists()


def test_two_builds_at_once() -> None:
    words = ["bash", ROOT / "ci/build.sh", "--no-table", "--channel", dist.upstream_of_built_channel()[0]]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert list(dist.CHANNEL.glob("*/*.conda")) and not list(DIST.glob("channel.*"))


NOBODY = 65534


@pytest.fixture
def foreign_checkout(tmp_path: Path) -> Iterator[Path]:
    """The checkout in a folder with spaces and letters beyond ASCII, read-only, and a cache for somebody else."""
    # Outside pytest's folders, which are their owner's.
    home = Path(f"/tmp/acl-qlinear-{os.getpid()}")
    checkout = home / "Käse und Brot/öäü 検査"
    files = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]).split("\0")
    for name in filter(None, files):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    cached = home / "cache/acl-qlinear"
    cached.mkdir(parents=True)
    for name in ("sources", "wheels", "debs", "apt", *(p.name for p in CACHE.glob("bootstrap-channel-*"))):
        if (CACHE / name).exists():
            run(["cp", "-a", "--reflink=auto", CACHE / name, cached])
    for folder in (home, home / "cache", *cached.rglob("*"), cached):
        os.chown(folder, NOBODY, NOBODY, follow_symlinks=False)
    run(["chmod", "-R", "a-w,a+rX", home / "Käse und Brot"])
    yield checkout
    run(["chmod", "-R", "u+w", home])
    shutil.rmtree(home)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_foreign_checkout(foreign_checkout: Path, tmp_path: Path) -> None:
    """Somebody who is not root builds the package again there, and gets the same bytes."""
    home = Path(f"/tmp/acl-qlinear-{os.getpid()}")
    channel = Path(shutil.copytree(dist.CHANNEL, home / "channel"))
    package = next(channel.glob("linux-aarch64/acl-qlinear-*-ptstable_*.conda"))
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "LC_ALL": "C.UTF-8",
        "ACL_QLINEAR_DIST": str(home / "dist"),
    }
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    done = subprocess.run(
        [*as_nobody, "bash", foreign_checkout / "ci/rebuild.sh", "--channel", "bootstrap", package],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-2000:], done.stderr[-3000:])
    if done.stderr.startswith("error: missing:"):
        pytest.skip(f"somebody else's python3 is another one here, and ci/rebuild.sh says: {done.stderr}")
    assert done.returncode == 0 and f"equal: {package.name}" in done.stdout
    # Where it may not write, ci/build.sh says so.
    done = subprocess.run(
        [*as_nobody, "bash", foreign_checkout / "ci/build.sh", "--channel", "bootstrap"],
        env={**environment, "ACL_QLINEAR_DIST": ""},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "set ACL_QLINEAR_DIST" in done.stderr.splitlines()[-1], done.stderr[-2000:]


def test_bootstrap_channel_is_the_same_again(tmp_path: Path) -> None:
    """What packages are built with is recorded in them by hash, so it must be reproducible too: its smallest parts."""
    wheels = [w for w in bootstrap.BOOTSTRAP["wheels"] if w["name"] in ("rich", "markupsafe")]
    spec = next(s for s in bootstrap.BOOTSTRAP["debian"] if s["name"] == "ccache")
    debs = debian.packages(spec["suite"], bootstrap.DEB_ARCH[bootstrap.BUILD_ARCH], spec["packages"])
    before = os.umask(0o077)
    try:
        for wheel in wheels:
            bootstrap._wheel_package(tmp_path, wheel, tmp_path / wheel["name"])
        bootstrap._debian_package(tmp_path, spec, bootstrap.BUILD_ARCH, debs, tmp_path / "ccache")
    finally:
        os.umask(before)
    made = sorted(tmp_path.glob("*/*.conda"))
    assert len(made) == 3
    for package in made:
        old = bootstrap.channel() / package.parent.name / package.name
        assert sha256(package) == sha256(old), package.name
