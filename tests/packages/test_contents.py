"""What is in the installed packages: symbols, links, instructions, metadata."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from acl_ci.cache import ROOT
from acl_ci.pins import VARIANTS, rows

from ..conftest import MICROARCHITECTURES

Unpacked = Callable[[str], Path]


@pytest.fixture(params=MICROARCHITECTURES)
def home(request: pytest.FixtureRequest, unpacked: Unpacked) -> Path:
    return unpacked(request.param)


def libraries(home: Path) -> list[Path]:
    return [(home / "lib/libarm_compute.so").resolve(), home / "lib/python3.11/site-packages/acl_qlinear/_C.so"]


def tool(binutils: Path, name: str, *arguments: str | Path) -> str:
    words = [binutils / f"aarch64-conda-linux-gnu-{name}", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_names_and_links(home: Path, binutils: Path) -> None:
    acl, extension = (tool(binutils, "readelf", "-dW", library) for library in libraries(home))
    assert "Library soname: [libarm_compute.so.43]" in acl and "(SYMBOLIC)" in acl
    assert "[$ORIGIN/../../..]" in extension
    assert set(re.findall(r"RUNPATH.*\[(.*)\]|RPATH.*\[(.*)\]", acl)) <= {("$ORIGIN", ""), ("", "$ORIGIN")}
    assert "libarm_compute.so.43" in extension
    for text in (acl, extension):
        assert not re.search("NEEDED.*(libpython|libtorch_python|libgomp|libomp)", text)
        assert "BIND_NOW" in text


def test_symbols(home: Path, binutils: Path) -> None:
    floor = tuple(map(int, VARIANTS["glibc_floor"][0].split(".")))
    for library in libraries(home):
        table = tool(binutils, "readelf", "--dyn-syms", "-W", library)
        assert len(table.splitlines()) > 20
        assert " UNIQUE " not in table
        versions = {tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([0-9.]+)", table)}
        assert versions and max(versions) <= floor, versions
    exported = tool(binutils, "nm", "-DC", "--defined-only", libraries(home)[0]).splitlines()
    foreign = [line for line in exported if not re.search(r"arm_compute|arm_gemm| Acl", line)]
    assert not foreign, foreign[:5]


def test_no_path_of_the_build_machine(home: Path) -> None:
    for library in [*libraries(home), home / "share/arm-compute-library/build.json"]:
        found = re.findall(rb"(?:/root/|/home/|/tmp/|/work/|_h_env|placehold|bld/)[ -~]{0,60}", library.read_bytes())
        assert not found, (library, found[:5])


def test_build_json(home: Path) -> None:
    record = json.loads((home / "share/arm-compute-library/build.json").read_text())
    version, sha256 = rows("acl_version", "acl_sha256")[0]
    assert record["version"] == version and record["source_sha256"] == sha256
    assert record["profile"] == "qlinear" and "12.2.0" in record["compiler"] and record["scons_options"]
    assert home.name.startswith(record["variant"].replace(".", "_").replace("-", "_").replace("armv8_2_a", "armv8_2a"))


def test_licences_are_in_the_packages(home: Path) -> None:
    for name, wanted in {"arm-compute-library": {"MIT.txt", "Apache-2.0.txt"}, "acl-qlinear": {"LICENSE"}}.items():
        record = json.loads(next((home / "conda-meta").glob(f"{name}-[0-9]*.json")).read_text())
        licences = {path.name for path in Path(record["extracted_package_dir"]).glob("info/licenses/**/*")}
        assert wanted <= licences, licences


# Tried one by one by the assembler, for a Neoverse V1 and nothing more.
# Left out: jumps and addresses, whose operands are places; every version has them.
PLACES = re.compile(r"(b|bl|b\.\w+|cbn?z|tbn?z|adrp?|ldr\s.*, [0-9a-f]+$|\.\.\.)\s")
V1 = "armv8.4-a+sve+i8mm+bf16+fp16+ssbs+rng+profile"


def test_neoverse_v1_build_has_no_instruction_that_a_v1_lacks(
    unpacked: Unpacked, binutils: Path, tmp_path: Path
) -> None:
    """Every distinct instruction of the libraries is assembled again with a V1's extensions only."""
    distinct: set[str] = set()
    for library in libraries(unpacked("neoverse_v1")):
        listing = tool(binutils, "objdump", "-d", "--no-show-raw-insn", "--no-addresses", library)
        for line in listing.splitlines():
            text = line.strip().split("//")[0].split(" <")[0].strip()
            if line.startswith("\t") and not PLACES.match(text):
                distinct.add(text)
    assert len(distinct) > 10_000
    undefined = {text for text in distinct if "undefined" in text or text.startswith((".inst", ".word", "udf"))}
    source = tmp_path / "all.s"
    source.write_text("\n".join(sorted(distinct - undefined)) + "\n")
    words = [binutils / "aarch64-conda-linux-gnu-as", f"-march={V1}", source, "-o", tmp_path / "all.o"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert not undefined, sorted(undefined)[:5]
    assert done.returncode == 0, "\n".join(done.stderr.splitlines()[:20])


def test_scan_sees_a_foreign_instruction(binutils: Path, tmp_path: Path) -> None:
    """The scan above can fail: SVE2, SME and Armv8.5-A instructions are refused."""
    for foreign in ("sqdmulh z0.s, z1.s, z2.s", "smstart", "frint32z s0, s1"):
        (tmp_path / "one.s").write_text(foreign + "\n")
        words = [binutils / "aarch64-conda-linux-gnu-as", f"-march={V1}", tmp_path / "one.s", "-o", "/dev/null"]
        assert subprocess.run(words, capture_output=True, check=False).returncode != 0, foreign


def test_recipes_build_with_warnings_as_errors() -> None:
    assert "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON" in (ROOT / "recipe/acl-qlinear/build.sh").read_text()
