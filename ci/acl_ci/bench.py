"""ci/bench.sh: everything that is promised about speed and memory, measured, and whether it is kept."""

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from . import bootstrap, build, emulator, packages, prefix
from .cache import CACHE, ROOT, CiError, command, folder, run, say
from .pins import VARIANTS, chosen

OUTPUT = build.DIST / "bench"
KEPT = ROOT / "tests/kept_costs.json"
# On a Neoverse V1, whose cycles are modelled; both builds run there.
CPU = "neoverse-v1"
BUILT_FOR_IT = "neoverse_v1"
PRESETS = ("smoke", "stream", "threads", "memory", "paper")
# What a case may grow by before it is a regression.
GROWTH = 1.03

Report = dict[str, Any]


def measure(home: Path, microarchitecture: str, preset: str) -> tuple[Report, str]:
    """A preset's report and table in an installed prefix; JSON and PNG are left in dist/bench."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    say(f"measuring {preset}, {microarchitecture} on {build.measured_cpu(CPU)}")
    files = OUTPUT / f"{preset}-{microarchitecture}"
    options = ["--largest-m", "128"] if preset == "paper" and not emulator.NATIVE else []
    report, printed = build.measure(home, CPU, "--preset", preset, "--png", f"{files}.png", *options)
    Path(f"{files}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report, printed


def promises(home: Path, report: Report) -> list[dict[str, Any]]:
    """What the package in `home` promises about a report's preset, and how it is kept."""
    program = (
        "import json, sys; from acl_qlinear.bench import promises\n"
        "results = promises.results(json.load(open(sys.argv[1])))\n"
        "print(json.dumps([{**r.__dict__, 'kept': r.kept} for r in results]))"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(report, file)
        file.flush()
        done = emulator.run_program(home, ["python3.11", "-c", program, file.name], CPU)
    if done.returncode:
        raise CiError(f"the promises cannot be read in {home}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def costs_to_keep(report: Report) -> dict[str, float]:
    """Our cost of each case of a grid, by name."""
    measure = report["measure"]
    return {f"{'×'.join(map(str, c['shape']))} {c['kind']}": round(c["acl"][measure]) for c in report["cases"]}


def grown(kept: dict[str, float], report: Report) -> list[str]:
    """The cases that cost more than GROWTH times what is kept."""
    return [
        f"{case}: {cost:,.0f} {report['measure']}, {kept[case]:,.0f} were kept"
        for case, cost in costs_to_keep(report).items() if cost > GROWTH * kept[case]
    ]  # fmt: skip


def build_figures() -> list[dict[str, Any]]:
    """Seconds that build_acl.sh takes, cold and with a warm ccache, and the size of what it makes."""
    machine = bootstrap.SUBDIR[bootstrap.BUILD_ARCH]
    row = chosen(acl_version=packages.acl_version())
    source = packages.debian_source(row["acl_source"][0], row["acl_sha256"][0])
    if not source:
        raise CiError("--builds needs apt, which ACL's source comes through")
    specs = ["gxx_linux-aarch64", "sysroot_linux-aarch64", "scons", "ccache", "python 3.11.*"]
    tools = folder(
        "acl-build-tools", [build.upstream_of_built_channel(), specs],
        lambda target: _install(target / "prefix", specs, machine),
    ) / "prefix"  # fmt: skip
    figures = []
    # The one with more to compile.
    variant = VARIANTS["acl_variant"][0]
    for profile in VARIANTS["profile"]:
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            for ccache in ("cold", "warm"):
                say(f"building ACL, {variant}, {profile}, {ccache} ccache")
                figures.append(_time_build(tools, source, variant, profile, ccache, Path(work)))
    return figures


def _install(target: Path, specs: list[str], machine: str) -> None:
    prefix.create(target, build.upstream_of_built_channel(), specs, None, platform=machine)


def _time_build(tools: Path, source: Path, variant: str, profile: str, ccache: str, work: Path) -> dict[str, Any]:
    installed = work / ccache
    script = 'for file in "$CONDA_PREFIX"/etc/conda/activate.d/*.sh; do source "$file"; done; exec "$@"'
    options = ["--variant", variant, "--profile", profile, "--source", str(source), "--prefix", str(installed)]
    environment = {
        **os.environ, "CONDA_PREFIX": str(tools), "PATH": f"{tools}/bin:{os.environ['PATH']}",
        "CCACHE_DIR": str(work / "ccache"), "CCACHE_COMPILERCHECK": "content", "CCACHE_NOHASHDIR": "1",
        "CCACHE_BASEDIR": "/",
    }  # fmt: skip
    environment.pop("BUILD_PREFIX", None)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run(["bash", "-c", script, "bash", ROOT / "build_acl.sh", *options], env=environment, cwd=work)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "variant": variant, "profile": profile, "ccache": ccache, "seconds": round(time.monotonic() - started),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime),
        "library_bytes": (installed / "lib/libarm_compute.so").stat().st_size,
    }  # fmt: skip


def package_sizes() -> dict[str, int]:
    """Bytes of each package in dist/channel, and of the libraries in the prefix of the build measured here."""
    found = {path.name: path.stat().st_size for path in sorted(build.CHANNEL.glob("*/*.conda"))}
    for library in ("lib/libarm_compute.so", "lib/python3.11/site-packages/acl_qlinear/_C.so"):
        found[library] = (build.DIST / f"prefix/{BUILT_FOR_IT}-pytorch{build.TORCH}" / library).stat().st_size
    return found


def _table(title: str, left: int, *headings: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, pad_edge=False, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right", no_wrap=True)
    return table


def promises_table(kept: list[dict[str, Any]]) -> Table:
    """What is promised, what was measured, and whether that is kept."""
    table = _table("targets and promises: at most", 1, "what", "measured", "target", "reached", "promise", "kept")
    for row in kept:
        reached, held = ("yes" if good else "NO" for good in (row["value"] <= row["target"], row["kept"]))
        table.add_row(row["what"], f"{row['value']:.4f}", f"{row['target']:g}", reached, f"{row['at_most']:g}", held)
    return table


def variants_table(reports: dict[str, Report]) -> Table:
    """Both builds on the same CPU."""
    measure = next(iter(reports.values()))["measure"]
    names = list(reports)
    table = _table(f"both builds on {build.measured_cpu(CPU)}: {measure} per call", 2, "M×K×N", "kind", *names, "ratio")
    ours = {n: {(tuple(c["shape"]), c["kind"]): c["acl"][measure] for c in reports[n]["cases"]} for n in names}
    for shape, kind in ours[names[0]]:
        first, last = (ours[name][shape, kind] for name in names)
        table.add_row("×".join(map(str, shape)), kind, f"{first:,.6g}", f"{last:,.6g}", f"{last / first:.3f}")
    return table


def builds_table(figures: list[dict[str, Any]]) -> Table:
    """What building ACL takes."""
    table = _table("build_acl.sh", 3, "variant", "profile", "ccache", "seconds", "CPU seconds", "library MiB")
    for row in figures:
        cells = (f"{row['seconds']:,}", f"{row['cpu_seconds']:,}", f"{row['library_bytes'] / 2**20:.1f}")
        table.add_row(row["variant"], row["profile"], row["ccache"], *cells)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/bench.sh", description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS, help="only this one; may be repeated")
    parser.add_argument("--builds", action="store_true", help="also time build_acl.sh")
    parser.add_argument("--keep", action="store_true", help=f"write {KEPT.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.keep and (emulator.NATIVE or "smoke" not in (options.preset or PRESETS)):
        raise CiError("--keep needs preset smoke under emulation: times are not kept")
    if not build.CHANNEL.is_dir():
        build.build_channel(build.upstream_channels([]), "qlinear", packages.acl_version())
    upstream = build.upstream_of_built_channel()
    console = Console(width=100, highlight=False)
    homes = {m: build.install(m, build.TORCH, upstream, ["matplotlib-base"]) for m in build.measured_here()}
    results: dict[str, Any] = {"reports": [], "promises": [], "package_bytes": {}}
    smoke: dict[str, Report] = {}
    main_build = BUILT_FOR_IT if BUILT_FOR_IT in homes else next(iter(homes))
    for preset in options.preset or PRESETS:
        for microarchitecture, home in homes.items():
            if preset != "smoke" and microarchitecture != main_build:
                continue
            report, printed = measure(home, microarchitecture, preset)
            console.print(printed)
            results["reports"].append(report)
            label = f"{microarchitecture}, " if len(homes) > 1 and preset == "smoke" else ""
            results["promises"] += [{**p, "what": label + p["what"]} for p in promises(home, report)]
            if preset == "smoke":
                smoke[microarchitecture] = report
    if len(smoke) > 1:
        console.print(variants_table(smoke))
    if options.builds:
        results["builds"] = build_figures()
        console.print(builds_table(results["builds"]))
    if BUILT_FOR_IT in homes:
        results["package_bytes"] = package_sizes()
    console.print(promises_table(results["promises"]))
    (OUTPUT / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    if options.keep:
        kept = {microarchitecture: costs_to_keep(report) for microarchitecture, report in smoke.items()}
        KEPT.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    return 0 if all(p["kept"] for p in results["promises"]) else 1


if __name__ == "__main__":
    command(main)
