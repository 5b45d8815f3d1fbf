# SPDX-License-Identifier: MIT
"""What importing acl_qlinear does: where it is refused, what it binds to, and forks."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from aclpkg.inputs import emulator

from ..conftest import PREFIXES, TORCH, TORCHES

Run = Callable[..., subprocess.CompletedProcess[str]]
Installed = Callable[[str, str], Path]


@pytest.mark.skipif(emulator.NATIVE, reason="needs an emulated CPU that lacks instructions")
def test_cpu_that_lacks_instructions(installed: Installed, run_in: Run) -> None:
    done = run_in(installed("neoverse_v1", TORCH), ["python", "-c", "import acl_qlinear"], "neoverse-n1")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: this acl_qlinear was built for neoverse-v1, and this CPU lacks")
    assert "sve" in last and "i8mm" in last and 'conda install "acl-qlinear=*=*armv8_2a*"' in last


@pytest.mark.skipif(emulator.NATIVE, reason="needs an emulated CPU that lacks instructions")
def test_cpu_that_no_build_is_for(installed: Installed, run_in: Run) -> None:
    """A Cortex-A72 has Armv8.0."""
    done = run_in(installed("armv8_2a", TORCH), ["python", "-c", "import acl_qlinear"], "cortex-a72")
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "built for armv8.2-a, and this CPU lacks atomics" in last
    assert last.endswith("; it is for CPUs with Armv8.2-A or newer")


@pytest.mark.skipif(emulator.NATIVE, reason="needs an emulated A64FX")
def test_armv8_2a_on_another_cpu(installed: Installed, run_in: Run) -> None:
    """An A64FX: 512-bit SVE, no i8mm, so other kernels."""
    program = ["python", "-m", "acl_qlinear.bench", "--check"]
    done = run_in(installed("armv8_2a", TORCH), program, "a64fx")
    assert done.returncode == 0 and "results are right" in done.stdout, done.stdout + done.stderr


def test_wrong_pytorch(installed: Installed, run_in: Run) -> None:
    program = "import torch; torch.__version__ = '2.5.1'; import acl_qlinear"
    done = run_in(installed("armv8_2a", TORCH), ["python", "-c", program], emulator.CPUS["armv8_2a"][0])
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert f"built for PyTorch {TORCH}, and PyTorch 2.5.1 is installed" in last


def test_missing_acl(installed: Installed, run_in: Run) -> None:
    prefix = installed("armv8_2a", TORCH)
    # A copy, since other tests use the prefix at the same time; beside it, since links stay in one file system.
    with tempfile.TemporaryDirectory(dir=prefix.parent) as folder:
        home = Path(folder) / "prefix"
        shutil.copytree(prefix, home, symlinks=True, copy_function=os.link)
        (soname,) = (link for link in (home / "lib").glob("libarm_compute.so.*") if link.is_symlink())
        soname.unlink()
        done = run_in(home, ["python", "-c", "import acl_qlinear"], emulator.CPUS["armv8_2a"][0])
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("ImportError") and soname.name in last
    assert "conda install --force-reinstall" in last


FORK = """
import os, time, torch, acl_qlinear
torch.set_num_threads(4)
torch.randn(512, 512).sin()  # starts OpenMP's threads
packed = acl_qlinear.prepack_int8(torch.ones(96, 128, dtype=torch.int8), torch.ones(1))
child = os.fork()
if not child:
    y = acl_qlinear.linear_int8(torch.full((200, 128), 4, dtype=torch.uint8), 0.5, 3, packed)
    os._exit(0 if y.eq(64).all() else 3)
for _ in range(6000):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        print("child ended with", status)
        break
    time.sleep(0.1)
else:
    os.kill(child, 9)
"""


@pytest.mark.parametrize(("torch", "microarchitecture"), {torch: name for name, torch in PREFIXES}.items())
def test_fork_before_the_first_call(installed: Installed, run_in: Run, torch: str, microarchitecture: str) -> None:
    """The library learns of a fork from when it is loaded on, not from its first call on."""
    done = run_in(installed(microarchitecture, torch), ["python", "-c", FORK], emulator.CPUS[microarchitecture][0])
    assert done.stdout == "child ended with 0\n", done.stdout + done.stderr


BOTH_LIBRARIES = """
import ctypes, glob, importlib.util, sys
torch_home = importlib.util.find_spec("torch").submodule_search_locations[0]
import torch
if "global" in sys.argv:
    # The worst case: each in everybody's scope, the wheel's first.
    theirs, = glob.glob(torch_home + ".libs/libarm_compute-*.so") or glob.glob(torch_home + "/lib/libarm_compute.so")
    ctypes.CDLL(theirs, mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(sys.prefix + "/lib/libarm_compute.so", mode=ctypes.RTLD_GLOBAL)
else:
    import acl_qlinear
    from acl_qlinear.bench.cases import make_case, our_error
    for kind in ("u8 tensor", "s8 tensor"):
        case = make_case(8, 64, 64, kind)
        assert our_error(case)[0] <= 1
        case.call("torch")()
    names = {line.split()[-1].rsplit("/", 1)[-1] for line in open("/proc/self/maps")}
    print(*(name for name in names if name.startswith(("libgomp", "libomp", "libiomp"))))
"""


@pytest.mark.parametrize("how", ["as imported", "global"])
def test_two_arm_compute_libraries_do_not_see_each_other(
    installed: Installed, run_in: Run, tmp_path: Path, how: str
) -> None:
    """What the loader binds ACL's symbols to, for every one of them, as LD_DEBUG reports it."""
    home = installed("neoverse_v1", TORCH)
    done = run_in(
        home,
        ["python", "-c", BOTH_LIBRARIES, how],
        emulator.CPUS["neoverse_v1"][0],
        LD_BIND_NOW="1",
        LD_DEBUG="bindings",
        LD_DEBUG_OUTPUT=str(tmp_path / "bindings"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pattern = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: \w+ symbol `(\S+)'")
    bindings = [m.groups() for log in tmp_path.iterdir() for m in pattern.finditer(log.read_text(errors="replace"))]
    acl = [b for b in bindings if re.search(r"\d(arm_compute|arm_gemm|arm_conv)", b[2])]

    def from_to(file: str, where: str) -> list[str]:
        return [symbol for source, target, symbol in acl if file in source and where in target]

    ours, theirs = "/libarm_compute.so", "torch.libs/libarm_compute-"
    # Most of ours are bound when it is linked (-Bsymbolic) and leave the loader nothing to look up.
    assert from_to(theirs, theirs) and any(ours in source for source, _, _ in bindings), "LD_DEBUG reported nothing"
    assert not from_to(ours, theirs) and not from_to(theirs, ours)
    if how == "as imported":
        assert from_to("acl_qlinear/_C.so", ours) and not from_to("acl_qlinear/_C.so", theirs)
        runtimes = done.stdout.split()
        assert len(runtimes) == 1 and "libgomp" in runtimes[0], f"OpenMP runtimes in the process: {runtimes}"


@pytest.mark.parametrize("torch", [TORCH, TORCHES[-1]])
def test_foreign_arm_compute_in_everybodys_scope_is_refused(installed: Installed, run_in: Run, torch: str) -> None:
    """From PyTorch 2.10 on, its library has the same name as ours."""
    program = BOTH_LIBRARIES.split("    ctypes.CDLL(sys.prefix")[0] + "    import acl_qlinear\n"
    home = installed("neoverse_v1", torch)
    done = run_in(home, ["python", "-c", program, "global"], emulator.CPUS["neoverse_v1"][0])
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last.startswith("ImportError: acl_qlinear would use "), last
    assert "RTLD_GLOBAL" in last
