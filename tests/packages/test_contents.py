# SPDX-License-Identifier: MIT
"""What is in the installed packages: symbols, links, instructions, metadata."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.base import archives
from aclpkg.base.messages import CiError
from aclpkg.base.paths import ROOT
from aclpkg.base.pins import SITE_PACKAGES, VARIANTS, rows
from aclpkg.build import dist, symbol_floors

from ..conftest import MICROARCHITECTURES

Unpacked = Callable[[str], Path]


@pytest.fixture(params=MICROARCHITECTURES)
def home(request: pytest.FixtureRequest, unpacked: Unpacked) -> Path:
    return unpacked(request.param)


def libraries(home: Path) -> list[Path]:
    return [(home / "lib/libarm_compute.so").resolve(), home / SITE_PACKAGES / "acl_qlinear/_C.so"]


def tool(binutils: Path, name: str, *arguments: str | Path) -> str:
    words = [binutils / f"aarch64-conda-linux-gnu-{name}", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_names_and_links(home: Path, binutils: Path) -> None:
    acl, extension = (tool(binutils, "readelf", "-dW", library) for library in libraries(home))
    (soname,) = re.findall(r"Library soname: \[(libarm_compute\.so\.\d+)\]", acl)
    assert "(SYMBOLIC)" in acl and re.search(rf"NEEDED.*\[{re.escape(soname)}\]", extension)
    assert "[$ORIGIN/../../..]" in extension
    assert set(re.findall(r"R(?:UN)?PATH.*\[(.*)\]", acl)) <= {"$ORIGIN", "$ORIGIN/"}
    for text in (acl, extension):
        assert not re.search("NEEDED.*(libpython|libtorch_python|libgomp|libomp)", text)
        assert "BIND_NOW" in text


@pytest.mark.parametrize("microarchitecture", MICROARCHITECTURES)
def test_stable_build_uses_no_class_of_pytorch(microarchitecture: str, binutils: Path, tmp_path: Path) -> None:
    (package,) = dist.CHANNEL.glob(f"*/acl-qlinear-*-ptstable_{microarchitecture}_*.conda")
    archives.unpack_package(package, tmp_path)
    table = tool(binutils, "readelf", "--dyn-syms", "-W", tmp_path / "site-packages/acl_qlinear/_C.so")
    used = re.findall(r" UND (\S+)", table)
    assert {"torch_library_impl", "aoti_torch_get_sizes", "torch_parallel_for"} <= set(used)
    assert not [name for name in used if re.match(r"_ZN?[KV]*(S._)?(2at|3c10|5torch|6caffe2)", name)]


def test_floors_are_what_the_symbols_need(home: Path, binutils: Path) -> None:
    """In each package's metadata, no lower and no higher: readelf agrees with symbol_floors.py."""
    for name, library in zip(("arm-compute-library", "acl-qlinear"), libraries(home), strict=True):
        table = tool(binutils, "readelf", "--dyn-syms", "-W", library)
        assert len(table.splitlines()) > 20 and " UNIQUE " not in table
        used: dict[str, set[tuple[int, ...]]] = {}
        for kind, version in re.findall(r"UND \S+@(GLIBC|GLIBCXX|GCC)_([0-9.]+)", table):
            used.setdefault(kind, set()).add(tuple(map(int, version.split("."))))
        needed = {kind: max(versions) for kind, versions in used.items()}
        depends = dict(depend.split(" >=") for depend in metadata(home, name)["depends"] if " >=" in depend)
        promised = tuple(map(int, VARIANTS["glibc_floor"][0].split(".")))
        assert (2, 17) <= needed["GLIBC"] <= promised
        assert depends["__glibc"] == ".".join(map(str, needed["GLIBC"]))
        assert int(depends["libstdcxx"]) == symbol_floors.GLIBCXX[needed["GLIBCXX"][2]] <= 12
        assert depends["libgcc"] == ".".join(map(str, needed["GCC"]))


def test_floor_above_the_promise_is_an_error(unpacked: Unpacked) -> None:
    with pytest.raises(CiError, match=r"x needs __glibc 2\.\d+, and its recipe promises to run with 2\.5"):
        symbol_floors.depends_with_floors(["__glibc >=2.5"], unpacked("armv8_2a") / SITE_PACKAGES / "acl_qlinear", "x")


def metadata(home: Path, name: str) -> dict:
    """What conda-meta/ says of an installed package."""
    return json.loads(next((home / "conda-meta").glob(f"{name}-[0-9]*.json")).read_text())


def test_exported_symbols_are_acls(home: Path, binutils: Path) -> None:
    exported = tool(binutils, "nm", "-DC", "--defined-only", libraries(home)[0]).splitlines()
    foreign = [line for line in exported if not re.search(r"arm_compute|arm_gemm|arm_conv| Acl", line)]
    assert not foreign, foreign[:5]


def test_hardening(home: Path, binutils: Path) -> None:
    for library in libraries(home):
        dynamic, segments = tool(binutils, "readelf", "-dW", library), tool(binutils, "readelf", "-lW", library)
        assert "GNU_RELRO" in segments and "BIND_NOW" in dynamic, "no full RELRO"
        assert re.findall(r"GNU_STACK.* (RWE?) ", segments) == ["RW"]
        assert "TEXTREL" not in dynamic
        assert "__stack_chk_fail" in tool(binutils, "readelf", "--dyn-syms", "-W", library)
        for path in re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic):
            assert all(re.match(r"\$ORIGIN(/|$)", part) for part in path.split(":")), path


def test_branch_protection(home: Path, compiler: Path, binutils: Path) -> None:
    """Return addresses are signed; the mark is there when every object that is linked has it."""
    given = ["crti.o", "crtbeginS.o", "crtendS.o", "crtn.o", "libgcc.a"]
    sysroot = f"--sysroot={compiler}/aarch64-conda-linux-gnu/sysroot"
    files = [tool(binutils, "g++", sysroot, f"-print-file-name={name}").strip() for name in given]
    every_object = all("BTI" in tool(binutils, "readelf", "-nW", file) for file in files)
    for library in libraries(home):
        listing = tool(binutils, "objdump", "-d", "--no-show-raw-insn", library)
        assert listing.count("paciasp") > 100 and re.search(r"\bbti\s+c", listing)
        assert ("BTI" in tool(binutils, "readelf", "-nW", library)) == every_object


# at::parallel_for is compiled into the extension; PyTorch brings the one runtime that has these.
OPENMP = re.compile("GOMP_|omp_")


def test_neither_overlinked_nor_underlinked(home: Path, compiler: Path, binutils: Path) -> None:
    """Every library that is named is used, and has what is asked for."""
    sysroot = compiler / "aarch64-conda-linux-gnu/sysroot"
    places = [home / "lib", home / SITE_PACKAGES / "torch/lib", *sysroot.glob("lib/*linux-gnu")]
    for library in libraries(home):
        named = re.findall(r"NEEDED.*\[(.*)\]", tool(binutils, "readelf", "-dW", library))
        wanted = symbols(binutils, library, "-u")
        undefined = {name for name, weak in wanted.items() if not weak and not OPENMP.match(name)}
        for name in named:
            found = next(place / name for place in places if (place / name).exists())
            has = symbols(binutils, found, "--defined-only").keys()
            assert has & wanted.keys(), f"{library.name} names {name} and uses nothing of it"
            undefined -= has
        assert not undefined, (library.name, sorted(undefined)[:5])


def symbols(binutils: Path, library: Path, kind: str) -> dict[str, bool]:
    """The dynamic symbols of a library, without their versions, and whether each is weak."""
    lines = (line.split() for line in tool(binutils, "nm", "-D", kind, library).splitlines())
    return {words[-1].split("@")[0]: words[-2] in "wvWV" for words in lines}


def test_build_json(home: Path) -> None:
    record = json.loads((home / "share/arm-compute-library/build.json").read_text())
    version, sha256 = rows("acl_version", "acl_sha256")[0]
    assert record["version"] == version and record["source_sha256"] == sha256
    assert record["profile"] == "qlinear" and "12.2.0" in record["compiler"] and record["scons_options"]
    assert home.name.startswith(record["variant"].replace(".", "_").replace("-", "_").replace("armv8_2_a", "armv8_2a"))


def test_about_is_complete(home: Path) -> None:
    for name in ("arm-compute-library", "acl-qlinear", *(["acl-microarch"] if "neoverse_v1" in home.name else [])):
        about = json.loads((Path(metadata(home, name)["extracted_package_dir"]) / "info/about.json").read_text())
        assert about["summary"] and about["license"] and len(about["description"]) > 100
        assert name != "arm-compute-library" or (about["home"] and about["dev_url"] and about["doc_url"])


def test_licences_are_in_the_packages(home: Path) -> None:
    for name, wanted in {"arm-compute-library": {"MIT.txt", "Apache-2.0.txt"}, "acl-qlinear": {"LICENSE"}}.items():
        record = metadata(home, name)
        licences = {path.name for path in Path(record["extracted_package_dir"]).glob("info/licenses/**/*")}
        assert wanted <= licences, licences


# Jumps and addresses, whose operands are places: every version has them.
PLACES = re.compile(r"(b|bl|b\.\w+|cbn?z|tbn?z|adrp?|ldr\s.*, [0-9a-f]+$|\.\.\.)(\s|$)")
V1 = "armv8.4-a+sve+i8mm+bf16+fp16+ssbs+rng+profile"
# ACL's hand-written kernels, named after what they need; ACL's tables call one only where
# the CPU has it. (Their SVE2 forms of requantization are for the supersets of a V1.) The
# packing of depthwise weights asks for SME's vector length where the kernel is an SME one.
DISPATCHED = re.compile(r"_ZNK?8arm_(gemm|conv).*\d(sve|sve2|sme2?)_|_ZN8arm_conv9depthwise11interleaves")


# Our kernels, which a weight names only where the CPU has what they need (KernelFamily::runs_here).
OUR_KERNELS = re.compile(r"_ZN11acl_qlinear.*\d(sve_mmla|sve_dot|sve_vector|neon_mmla|neon_dot)")


def foreign_instructions(listing: str, binutils: Path, work: Path, march: str = V1) -> dict[str, set[str]]:
    """Instructions that the assembler refuses for an architecture, and the functions that have them."""
    functions: dict[str, set[str]] = {}
    function = "?"
    for line in listing.splitlines():
        if line.startswith("<"):
            function = line.strip("<>:")
        text = line.strip().split("//")[0].split(" <")[0].strip()
        if line.startswith("\t") and not PLACES.match(text):
            functions.setdefault(text, set()).add(function)
    texts = sorted(functions)
    (work / "all.s").write_text("\n".join(texts) + "\n")
    words = [binutils / "aarch64-conda-linux-gnu-as", f"-march={march}", work / "all.s", "-o", "/dev/null"]
    errors = subprocess.run(words, capture_output=True, text=True, check=False).stderr
    numbers = {int(n) for n in re.findall(r"all\.s:(\d+): Error", errors)}
    return {texts[n - 1]: functions[texts[n - 1]] for n in numbers}


def test_neoverse_v1_build_uses_no_instruction_that_a_v1_lacks(
    unpacked: Unpacked, binutils: Path, tmp_path: Path
) -> None:
    for library in libraries(unpacked("neoverse_v1")):
        listing = tool(binutils, "objdump", "-d", "--no-show-raw-insn", "--no-addresses", library)
        assert listing.count("\n") > 5_000
        foreign = foreign_instructions(listing, binutils, tmp_path)
        outside = {text: names for text, names in foreign.items() if not all(map(DISPATCHED.match, names))}
        assert not outside, list(outside.items())[:10]


def test_armv8_2a_extension_keeps_newer_instructions_to_its_kernels(
    unpacked: Unpacked, binutils: Path, tmp_path: Path
) -> None:
    _, extension = libraries(unpacked("armv8_2a"))
    listing = tool(binutils, "objdump", "-d", "--no-show-raw-insn", "--no-addresses", extension)
    foreign = foreign_instructions(listing, binutils, tmp_path, "armv8.2-a+fp16")
    assert {"smmla", "sdot"} <= {text.split()[0] for text in foreign}
    outside = {text: names for text, names in foreign.items() if not all(map(OUR_KERNELS.match, names))}
    assert not outside, list(outside.items())[:10]


# Where ACL's armv8_2a library may have newer instructions: (instruction, demangled function).
NEWER_IN_ACL = [
    # Hand-written kernels and what is made for one, all named after what they need: ACL's tables
    # hold one back from a CPU that lacks it.
    (r".", r"\b(arm_gemm|arm_conv)::.*\b(cls_|interleave_)?(sve2?|sme2?)_"),
    (r".", r"\b(arm_gemm|arm_conv)::.*\b(cls_|interleave_)?a64_\w*(dot|mmla|bf16|fp32bf16fp32)"),
    # Kernels in files that are compiled for SVE, which ACL chooses the same way.
    (r".", r"\barm_compute::(cpu|\(anonymous namespace\))::(\w+_)?(sve|sve2|sme2)(_\w+)?[(<]|__SV\w+_t"),
    (r".", r"\barm_compute::cpu::elementwise_(arithmetic|comparison)(_quantized)?_op<"),
    # Parts of SVE kernels that are templates: the third argument, and vectors of a variable length.
    (r".", r"\barm_gemm::(MergeResults<\w+, \w+, true,|Transform<\w+, \w+, \w+, \(arm_gemm::VLType\)1,)"),
    # The length of a vector, asked for where a table or a weight format already says SVE or SME.
    (
        r"cntb\s+x\d+$|rdsvl\s",
        r"\barm_gemm::(gemm_\w+_methods::|get_weight_format)|\barm_conv::depthwise::|::NEReorderKernel::validate\(",
    ),
    # Only for tensors of bfloat16, which ACL takes where the CPU has it: kernels, and the conversion of one
    # value in ACL's header, inlined into whatever fills a tensor of any type.
    (r"bf\w+\s", r"bfloat16|__bf16"),
    (r"bfcvt\s+h0, s0$", r""),
]


@pytest.mark.parametrize("operators", VARIANTS["operators"])
def test_armv8_2a_acl_keeps_newer_instructions_to_what_is_dispatched(
    request: pytest.FixtureRequest, operators: str, unpacked: Unpacked, binutils: Path, tmp_path: Path
) -> None:
    home = tmp_path if operators == "full" else unpacked("armv8_2a")
    if operators == "full":
        full_channel: Path = request.getfixturevalue("full_channel")
        package = next(full_channel.glob("*/arm-compute-library-*-armv8_2a_full_*.conda"))
        archives.unpack_package(package, home)
    library = (home / "lib/libarm_compute.so").resolve()
    listing = tool(binutils, "objdump", "-dC", "--no-show-raw-insn", "--no-addresses", library)
    foreign = foreign_instructions(listing, binutils, tmp_path, "armv8.2-a+fp16")
    assert {"smmla", "sdot", "bfmmla", "whilelt"} <= {text.split()[0] for text in foreign}
    outside = {
        (text, name)
        for text, names in foreign.items()
        for name in names
        if not any(re.match(a, text) and re.search(b, name) for a, b in NEWER_IN_ACL)
    }
    assert not outside, sorted(outside, key=str)[:10]


def test_scan_sees_a_foreign_instruction(binutils: Path, tmp_path: Path) -> None:
    """The scan above can fail: SVE2, SME and Armv8.5-A instructions are found, a V1's are not."""
    listing = "<f>:\n\tsqdmulh\tz0.s, z1.s, z2.s\n\tsmstart\n\tfrint32z\ts0, s1\n\tsmmla\tz0.s, z1.b, z2.b\n"
    foreign = foreign_instructions(listing, binutils, tmp_path)
    assert {text.split()[0] for text in foreign} == {"sqdmulh", "smstart", "frint32z"}


def test_recipes_build_with_warnings_as_errors() -> None:
    assert "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON" in (ROOT / "recipe/acl-qlinear/build.sh").read_text()
