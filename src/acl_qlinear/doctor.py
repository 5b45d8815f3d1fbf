# SPDX-License-Identifier: MIT
"""acl-qlinear doctor: what is wrong with this environment, and what to do.

Runs where `import acl_qlinear` fails, too: bin/acl-qlinear starts this file by its path.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__:
    from . import _build, _builds, _cpu, _streams
else:
    import _build  # type: ignore[import-not-found]
    import _builds  # type: ignore[import-not-found,no-redef]
    import _cpu  # type: ignore[import-not-found,no-redef]
    import _streams  # type: ignore[import-not-found,no-redef]

    # Python has put this file's folder there; what lies in it is the package's, and no module by itself.
    del sys.path[0]

OK, PROBLEM, UNKNOWN = "ok", "problem", "unknown"
ARMV8_2A, NEOVERSE_V1 = "armv8.2-a", "neoverse-v1"
# Importing PyTorch takes half a minute where it is emulated, or on a slow file system.
PROBE_SECONDS = 600


@dataclass(frozen=True)
class Finding:
    """Whether one possible cause of trouble applies."""

    name: str
    state: str
    text: str
    fix: str = ""


def _torch_version() -> str | None:
    """PyTorch's version, without importing it."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _selected() -> Any:
    """The build that would be loaded."""
    return _builds.select(_build, _torch_version(), _cpu.missing_features)


def microarchitecture() -> Finding:
    """A build for another CPU than this one."""
    name, built = "microarchitecture", _selected().microarchitecture
    if platform.machine() != "aarch64":
        return Finding(name, PROBLEM, f"this machine is {platform.machine()}", "acl-qlinear is for AArch64 only")
    if missing := _cpu.missing_features(built):
        fix = _builds.how_to_get_another_build(_cpu.missing_features) or f"none: {_builds.FOR_WHOM}"
        return Finding(name, PROBLEM, f"built for {built}, and this CPU lacks {', '.join(missing)}", fix)
    text = f"built for {built}, which this CPU can run"
    if built == ARMV8_2A and not _cpu.missing_features(NEOVERSE_V1):
        text += "; so it can the neoverse_v1 build, which gains 0 to 3 %"
    return Finding(name, OK, text)


def torch_minor() -> Finding:
    """A PyTorch that this build is not for."""
    version = _torch_version()
    if not version:
        return Finding("PyTorch", PROBLEM, f"none for {sys.executable}", _builds.how_to_get_torch(_build, None))
    if not _selected().fits(version):
        text = f"built for PyTorch {_builds.torch_minors(_build)}, and PyTorch {version} is installed"
        return Finding("PyTorch", PROBLEM, text, _builds.how_to_get_torch(_build, version))
    return Finding("PyTorch", OK, version)


def glibc(prefix: Path) -> Finding:
    """A C library that is older than a package of this environment needs."""
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
    floors = sorted(_glibc_floors(prefix), key=lambda entry: _numbers(entry[1]))
    if not floors or not version:
        return Finding("glibc", UNKNOWN, f"{version or 'not found'}; {prefix} has no packages that say what they need")
    package, needed = floors[-1]
    if _numbers(version) < _numbers(needed):
        fix = f"a system with glibc {needed} or newer, or a container with one"
        return Finding("glibc", PROBLEM, f"{version}, and {package} needs {needed}", fix)
    return Finding("glibc", OK, f"{version}; the most that a package needs is {needed} ({package})")


def _glibc_floors(prefix: Path) -> Iterator[tuple[str, str]]:
    for file in (prefix / "conda-meta").glob("*.json"):
        record = json.loads(file.read_bytes())
        for depend in record.get("depends", []):
            if found := re.match(r"__glibc >=([0-9.]+)", depend):
                yield record["name"], found[1].rstrip(".")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def probe(modules: list[str]) -> dict[str, Any]:
    """What `_see` finds in a process of its own, which may crash or hang; "error" where it fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        signal.alarm(PROBE_SECONDS)
        os.write(writing, json.dumps(_see(modules)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if text:
        return json.loads(text)
    what = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
    return {"error": f"importing acl_qlinear ended the process with {what}"}


def _see(modules: list[str]) -> dict[str, Any]:
    """What a process that has PyTorch and acl_qlinear loaded, and has run a layer, knows of itself."""
    seen: dict[str, Any] = {}
    try:
        import torch

        seen["threads"] = torch.get_num_threads()
        import acl_qlinear

        for module in modules:
            importlib.import_module(module)
        packed = acl_qlinear.prepack_int8(torch.ones(256, 256, dtype=torch.int8), torch.ones(1))
        acl_qlinear.linear_dynamic(torch.ones(64, 256), packed)
        kernel = acl_qlinear.ops.kernel_name(packed)
        seen |= {"kernel": kernel, "fallback_calls": acl_qlinear.fallback_calls()}
    except Exception as error:
        seen["error"] = str(error)
    mapped = _builds.mapped_files()
    seen["openmp"] = sorted(file for file in mapped if re.match(r"lib(gomp|omp|iomp5)\b", Path(file).name))
    return seen


def loading(seen: dict[str, Any]) -> Finding:
    """`import acl_qlinear` fails."""
    if "error" in seen:
        return Finding("import", PROBLEM, seen["error"], "as the error says, and what is above")
    return Finding("import", OK, f"ACL {_build.ACL_VERSION}, kernel {seen['kernel']}")


def openmp(seen: dict[str, Any]) -> Finding:
    """Two OpenMP runtimes in one process."""
    name, runtimes = "OpenMP", seen.get("openmp", [])
    if len(runtimes) > 1:
        fix = (
            "one runtime for all: do not set LD_PRELOAD, and install what brings the other one from the same channel "
            "as PyTorch (in a conda environment, `conda list openmp` and `conda list libgomp` show it)"
        )
        return Finding(name, PROBLEM, f"{len(runtimes)} runtimes in one process: {', '.join(runtimes)}", fix)
    if not runtimes:
        return Finding(name, UNKNOWN, "no runtime seen, since the import failed")
    return Finding(name, OK, f"one runtime: {runtimes[0]}")


def speed(seen: dict[str, Any]) -> Finding:
    """Slow: the fallback, kernels without dot products, or few threads."""
    name = "speed"
    if "kernel" not in seen:
        return Finding(name, UNKNOWN, "not tried, since the import failed")
    if seen["fallback_calls"]:
        return Finding(name, PROBLEM, "a layer with symmetric weights used the fallback", "report it: it never should")
    if "asimddp" in _cpu.missing_features(NEOVERSE_V1):
        return Finding(name, PROBLEM, f"kernel {seen['kernel']}: this CPU has no dot products", "none but another CPU")
    threads, cpus, allowed = seen["threads"], _cpu.usable_cpus(), len(os.sched_getaffinity(0))
    quota = f"; a cgroup's quota leaves {cpus} of {allowed} CPUs" if cpus < allowed else ""
    if threads != cpus:
        setting = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}" if "OMP_NUM_THREADS" in os.environ else "PyTorch"
        fix = f"where that is not meant: export OMP_NUM_THREADS={cpus}, or srun --cpus-per-task, with binding"
        kind = PROBLEM if threads > cpus else OK
        return Finding(name, kind, f"{threads} thread(s) on {cpus} CPU(s), by {setting}{quota}", fix)
    return Finding(name, OK, f"kernel {seen['kernel']}, {threads} thread(s) on {cpus} CPU(s), no fallback{quota}")


MODEL_ADVICE = """\
A model's own layers are seen in its process only: print(acl_qlinear.report(model)) names those that
are not on ACL, and why; acl_qlinear.fallback_calls() counts calls that took the fallback, and
acl_qlinear.forbid_fallback() makes an error of it."""


def examine(modules: list[str], prefix: Path) -> list[Finding]:
    """All findings for this Python and `prefix`, an environment; modules: what else is imported besides."""
    found = [_guarded(check) for check in (microarchitecture, torch_minor, lambda: glibc(prefix))]
    seen = probe(modules)
    return found + [_guarded(lambda check=check: check(seen)) for check in (loading, openmp, speed)]  # type: ignore[misc]


def _guarded(check: Callable[[], Finding]) -> Finding:
    """A broken environment may break a check, which must not hide the others."""
    try:
        return check()
    except Exception as error:
        return Finding(getattr(check, "__name__", "check"), UNKNOWN, f"{type(error).__name__}: {error}")


def main() -> int:
    _streams.print_what_streams_can_take()
    parser = argparse.ArgumentParser(
        prog="acl-qlinear doctor", description="Says what is wrong with this environment, and what to do."
    )
    parser.add_argument(
        "--import", dest="modules", action="append", default=[], metavar="MODULE",
        help="import this too, since it may bring another OpenMP runtime; may be repeated",
    )  # fmt: skip
    options = parser.parse_args()
    microarchitectures = ", ".join(dict.fromkeys(build[0] for build in _build.BUILDS))
    build = f"{microarchitectures}, ACL {_build.ACL_VERSION}, PyTorch {_builds.torch_minors(_build)}"
    print(f"acl-qlinear {_build.VERSION} (built for {build}) in {sys.prefix}", flush=True)
    findings = examine(options.modules, Path(sys.prefix))
    for finding in findings:
        print(f"{finding.state:8} {finding.name:18} {finding.text}")
        if finding.fix:
            print(f"{'':27} → {finding.fix}")
    print(f"\n{MODEL_ADVICE}")
    return 1 if any(finding.state == PROBLEM for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
