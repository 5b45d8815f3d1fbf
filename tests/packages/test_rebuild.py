# SPDX-License-Identifier: MIT
"""Packages are the same, byte for byte, wherever and whenever they are built."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from aclpkg.base import archives, cache, files
from aclpkg.base.hashes import sha256
from aclpkg.base.paths import CACHE, DIST, ROOT
from aclpkg.base.pins import EPOCH, VARIANTS
from aclpkg.build import dist, normalize, provenance, sbom
from aclpkg.build.packages import build_packages
from aclpkg.inputs import bootstrap
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# Another user's name, locale, time zone, umask and number of jobs; ci/rebuild.sh builds in another folder.
ELSEWHERE = {
    "USER": "somebody",
    "LOGNAME": "somebody",
    "LC_ALL": "C.UTF-8",
    "TZ": "Pacific/Kiritimati",
    "CPU_COUNT": "3",
}


def packages() -> list[Path]:
    return sorted(dist.CHANNEL.glob("*/*.conda"))


def ours() -> list[Path]:
    """One build of each package for each microarchitecture."""
    return [p for p in packages() if p.name.startswith("arm-") or "-ptstable_" in p.name]


def rebuild(package: Path, *options: str, umask: int = 0o077) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", ROOT / "ci/rebuild.sh", *upstream_options(), *options, package],
        env={**os.environ, **ELSEWHERE},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )


def upstream_options() -> list[str]:
    return [word for address in dist.upstream_of_built_channel() for word in ("--channel", address)]


def test_rebuilt_package_is_equal(request: pytest.FixtureRequest) -> None:
    assert len(ours()) == 2 * len(VARIANTS["microarchitecture"])
    for package in ours():
        options = ["--no-ccache"] if request.config.getoption("--all") else []
        done = rebuild(package, *options)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        assert f"equal: {package.name}, sha256 {sha256(package)}" in done.stdout


def test_difference_is_shown(tmp_path: Path) -> None:
    """A package that says it was made from something else than it was."""
    channel = Path(shutil.copytree(dist.CHANNEL, tmp_path / "channel"))
    package = next(channel.glob("linux-aarch64/acl-qlinear-*-ptstable_*.conda"))
    root = tmp_path / "root"
    archives.unpack_package(package, root)
    source = root / normalize.SOURCES / "src/acl_qlinear/reference.py"
    source.write_text(source.read_text() + "ALTERED = True\n")
    archives.pack_package(root, package, EPOCH)
    done = rebuild(package)
    assert done.returncode == 1 and "different: " in done.stdout and "+ALTERED = True" in done.stdout, done.stderr
    assert "cannot be built again as it is" in done.stderr


def test_file_that_is_no_package(tmp_path: Path) -> None:
    done = rebuild(tmp_path / "nothing.conda")
    assert done.returncode == 1 and "nothing.conda, expected a .conda file" in done.stderr


def test_packages_tell_nothing_of_the_machine(tmp_path: Path) -> None:
    places = "|".join(re.escape(str(place)) for place in (ROOT, CACHE, Path.home(), DIST))
    pattern = re.compile(f"({places}|/(?:root|home|tmp|work)/|_h_env|_placehold|file://)[ -~]{{0,60}}".encode())
    for package in packages():
        root = tmp_path / package.stem
        archives.unpack_package(package, root)
        for file in root.rglob("*"):
            assert not (file.is_symlink() and "info" in file.parts), file
            # The recipe and the sources are the checkout's own text.
            own = "info/recipe/sources" in str(file) or file.name in ("recipe.yaml", "build.sh")
            if file.is_file() and not own:
                found = [m.group() for m in pattern.finditer(file.read_bytes())]
                assert not found, (package.name, file.name, found[:5])
        index = json.loads((root / "info/index.json").read_text())
        assert index["timestamp"] == EPOCH * 1000
        shutil.rmtree(root)


@pytest.mark.parametrize("name", ["acl-microarch", "arm-compute-library", "acl-qlinear"])
def test_sbom(name: str) -> None:
    package = next(p for p in packages() if p.name.startswith(f"{name}-"))
    text = files.beside(package, sbom.SUFFIX).read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    bom = json.loads(text)
    described = bom["metadata"]["component"]
    assert described["name"] == name and described["hashes"][0]["content"] == sha256(package)
    parts = {part["name"]: part for part in bom.get("components", [])}
    if name == "arm-compute-library":
        assert parts["arm-compute-library-source"]["hashes"][0]["content"] == VARIANTS["acl_sha256"][0]
        assert parts["half"]["licenses"] == [{"expression": "MIT"}]
        assert parts["gxx_linux-aarch64"]["scope"] == "excluded" and parts["libstdcxx"]["scope"] == "required"
    if name == "acl-qlinear":
        assert parts["pytorch"]["scope"] == parts["arm-compute-library"]["scope"] == "required"
        digests = {sha256(p) for p in packages() if p.name.startswith("arm-compute-library-")}
        assert parts["arm-compute-library"]["hashes"][0]["content"] in digests


@pytest.mark.parametrize("name", ["acl-microarch", "arm-compute-library", "acl-qlinear"])
def test_provenance(name: str) -> None:
    package = next(p for p in packages() if p.name.startswith(f"{name}-"))
    statement = json.loads(files.beside(package, provenance.SUFFIX).read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["subject"] == [{"name": package.name, "digest": {"sha256": sha256(package)}}]
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["recipe"] == f"recipe/{name}/recipe.yaml"
    materials = definition["resolvedDependencies"]
    assert all(len(digest) in (40, 64) for material in materials for digest in material["digest"].values())
    if (ROOT / ".git").exists():
        assert re.fullmatch("[0-9a-f]{40}", materials[0]["digest"]["gitCommit"])
    if name == "arm-compute-library":
        assert VARIANTS["acl_sha256"][0] in {material["digest"].get("sha256") for material in materials}
    run = statement["predicate"]["runDetails"]
    assert run["builder"]["version"]["rattler-build"] and run["metadata"]["startedOn"] <= run["metadata"]["finishedOn"]


def test_build_that_was_not_locked_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file of Debian's stood in for a locked one when the channel with the tool chain was made."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    upstream = tmp_path / "upstream"
    (upstream / "noarch").mkdir(parents=True)
    (upstream / "noarch/repodata.json").write_text('{"packages": {}, "packages.conda": {}}')
    stand_ins = {"bookworm/arm64/libc6_1_arm64.deb": "libc6_2_arm64.deb"}
    (upstream / bootstrap.NOT_LOCKED).write_text(json.dumps(stand_ins))
    channel = tmp_path / "channel"
    (channel / "noarch").mkdir(parents=True)
    build_packages("acl-microarch", channel, [upstream.as_uri()], cpu_name="neoverse_v1")
    (package,) = channel.glob("noarch/*.conda")
    statement = json.loads(files.beside(package, provenance.SUFFIX).read_text())
    assert statement["predicate"]["buildDefinition"]["internalParameters"]["notLocked"] == stand_ins
    bom = json.loads(files.beside(package, sbom.SUFFIX).read_text())
    (mark,) = bom["metadata"]["properties"]
    assert mark == {"name": "acl-qlinear:not-locked", "value": "bookworm/arm64/libc6_1_arm64.deb: libc6_2_arm64.deb"}


def test_build_that_was_locked_has_no_mark() -> None:
    for package in packages():
        statement = json.loads(files.beside(package, provenance.SUFFIX).read_text())
        assert statement["predicate"]["buildDefinition"]["internalParameters"]["notLocked"] == {}
        assert "properties" not in json.loads(files.beside(package, sbom.SUFFIX).read_text())["metadata"]
