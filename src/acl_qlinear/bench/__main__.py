# SPDX-License-Identifier: MIT
"""python -m acl_qlinear.bench: the command line."""

import argparse
import json
import os
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import acl_qlinear
from acl_qlinear import _build
from acl_qlinear._load import BUILD
from acl_qlinear._streams import print_what_streams_can_take

from . import peers, plot, report, speed_limits
from .cases import KINDS, Shape, wrong_results
from .meters import Clock, Counters, Meter, pin
from .workloads import PRESETS, measure_cases, side_by_side

# Arm's numbers of parts in /proc/cpuinfo, which the emulator has as well.
_CORES = {
    "0xd0c": "neoverse-n1", "0xd40": "neoverse-v1", "0xd49": "neoverse-n2", "0xd4f": "neoverse-v2",
    "0xd83": "neoverse-v3ae", "0xd84": "neoverse-v3", "0xd8e": "neoverse-n3", "0x001": "a64fx",
}  # fmt: skip


def cpu() -> str:
    """The core, by qemu's name where it is known."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    part = next((line.split(":")[1].strip() for line in lines if line.startswith("CPU part")), "unknown")
    return _CORES.get(part, f"CPU part {part}")


def versions(with_peers: bool) -> dict[str, str]:
    """What is measured, with what is beside and below it."""
    onednn = re.search(r"(?:MKL-DNN|oneDNN) v([0-9.]+)", torch.__config__.show())
    return {
        "acl_qlinear": acl_qlinear.__version__, "acl": _build.ACL_VERSION, "torch": torch.__version__,
        "onednn": onednn[1] if onednn else "none", "python": platform.python_version(), "numpy": np.__version__,
        "libc": " ".join(platform.libc_ver()), "kernel": platform.release(),
        "microarchitecture": BUILD.microarchitecture, **(peers.versions() if with_peers else {}),
    }  # fmt: skip


def make_report(options: argparse.Namespace, cases: list[tuple[Shape, str]], cores: list[int] | None) -> report.Report:
    """Measures all cases, with progress on stderr; what --json writes."""
    # A thread that refreshes the progress bar would be counted with the calls.
    console = Console(stderr=True)
    meter: Meter = Counters(options.counters) if options.counters else Clock()
    preset = PRESETS[options.preset]
    if options.peers:
        preset = replace(preset, engines=(*preset.engines, *peers.PEERS))
    steps = track(
        measure_cases(meter, preset, cases), f"measuring {options.preset}", total=len(cases), console=console,
        transient=True, auto_refresh=False,
    )  # fmt: skip
    return {
        "versions": versions(options.peers), "preset": options.preset, "measure": meter.measure,
        "threads": torch.get_num_threads(), "node": os.environ.get("SLURMD_NODENAME", platform.node()),
        "cpu": cpu(), "pinned_to": cores, "warm_up_calls": meter.warm_up, "command": sys.argv,
        "cases": list(steps),
    }  # fmt: skip


def parse_shape(text: str) -> Shape:
    """MxKxN."""
    try:
        M, K, N = map(int, text.replace("×", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a shape, expected MxKxN, 8x768x768 for instance") from None
    return M, K, N


def parse_part(text: str) -> tuple[int, int]:
    """I/N."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"'{text}' is not a part, expected I/N with I from 1 to N, 2/8 for instance")
    return int(found[1]), int(found[2])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m acl_qlinear.bench",
        description="Measures a linear layer on this machine: ours, PyTorch's own int8 one, and fp32, side by side.",
    )
    presets = "; ".join(f"{name}: {preset.help}" for name, preset in PRESETS.items())
    parser.add_argument("--preset", choices=PRESETS, default="smoke", help=f"default: smoke. {presets}")
    parser.add_argument("--shape", action="append", type=parse_shape, metavar="MxKxN", help="instead of the preset's")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be repeated")
    parser.add_argument("--largest-m", type=int, default=512, metavar="M", help="leave out shapes with more rows")
    parser.add_argument(
        "--part", type=parse_part, metavar="I/N", help="only every N-th case from the I-th on: one node's share"
    )
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="PART.json",
        help="measure nothing: put the reports of all parts together",
    )  # fmt: skip
    parser.add_argument(
        "--peers", action="store_true",
        help="also measure ONNX Runtime and OpenVINO (smoke, paper, models): pip install onnxruntime onnx openvino",
    )  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's intra-op threads (default: 1)")
    parser.add_argument("--counters", type=Path, metavar="FILE", help="file that the counter plugin writes to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw them here; needs matplotlib")
    parser.add_argument("--check", action="store_true", help="only check that results are right")
    parser.add_argument("--promised", action="store_true", help="fail when a promise about the preset is not kept")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="print what changed from A to B"
    )
    options = parser.parse_args()
    # Before anything is measured, which may take long.
    if options.png and not plot.is_possible():
        parser.error("--png needs matplotlib: conda install matplotlib-base")
    for file in (options.json, options.png):
        if file and not file.parent.is_dir():
            parser.error(f"{file} cannot be written: there is no directory {file.parent}")
    if options.shape and options.preset == "memory":
        parser.error("--shape does not go with --preset memory, which is about the layers of bert-base")
    if options.peers and PRESETS[options.preset].measure is not side_by_side:
        grids = ", ".join(name for name, preset in PRESETS.items() if preset.measure is side_by_side)
        parser.error(f"--peers does not go with --preset {options.preset}, expected one of {grids}")
    if options.peers and (missing := peers.missing()):
        parser.error(f"--peers needs packages that are not installed: pip install {' '.join(missing)}")
    return options


def check() -> int:
    """Whether results are right on this CPU; the exit status."""
    shapes = [shape for shape in PRESETS["smoke"].shapes if shape[0] <= 8]
    wrong = wrong_results((shape, kind) for shape in shapes for kind in KINDS)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"acl_qlinear {acl_qlinear.__version__} on {BUILD.microarchitecture}: results are right")
    return 1 if wrong else 0


def write(path: Path, result: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, indent=2) + "\n")
    partial.rename(path)


def main() -> int:
    print_what_streams_can_take()
    options = parse_arguments()
    console = Console(width=100, highlight=False)
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        console.print(report.compare(before, after))
        return 0
    if options.merge:
        try:
            show(report.merge([json.loads(path.read_text()) for path in options.merge]), console, options)
        except ValueError as error:
            sys.exit(f"error: {error}")
        return 0
    if not options.counters and "QEMU_CPU" in os.environ and not options.check:
        sys.exit("error: time under emulation says nothing: run it under the counter plugin, with --counters FILE")
    preset = PRESETS[options.preset]
    # Emulated threads run wherever the machine has time.
    cores = None if options.counters or options.preset == "threads" else pin(options.threads)
    torch.set_num_threads(options.threads)
    if options.check:
        return check()
    shapes = options.shape or preset.shapes
    cases = [
        (shape, kind) for shape in shapes if shape[0] <= options.largest_m for kind in preset.kinds
        if not options.kind or kind in options.kind
    ]  # fmt: skip
    if options.part:
        number, count = options.part
        cases = cases[number - 1 :: count]
    result = make_report(options, cases, cores)
    if options.part:
        result["part"] = options.part
    show(result, console, options)
    broken = [r for r in speed_limits.results(result) if options.promised and not options.shape and not r.kept]
    for r in broken:
        print(f"not as promised: {r.what}: {r.value:.4g}, expected at most {r.at_most}", file=sys.stderr)
    return 1 if broken else 0


def show(result: report.Report, console: Console, options: argparse.Namespace) -> None:
    """Prints a report's table, and writes its files."""
    console.print(report.table(result))
    if len(result["cases"]) > 1 and "max_error" in result["cases"][0]:
        means = ", ".join(f"{kind} {mean:.3f}" for kind, mean in report.geometric_means(result).items())
        console.print(f"geometric means of acl/torch: {means}")
    if options.json:
        write(options.json, {**result, "promises": [{**vars(r), "kept": r.kept} for r in speed_limits.results(result)]})
    if options.png:
        plot.save(result, options.png)


if __name__ == "__main__":
    sys.exit(main())
