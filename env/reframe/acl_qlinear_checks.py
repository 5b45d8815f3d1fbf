# SPDX-License-Identifier: MIT
"""ReFrame tests of acl-qlinear on the nodes of a cluster: results, costs, and a sweep over many nodes.

  reframe -C sites/slurm.py -c acl_qlinear_checks.py -n 'Correctness|Speed' -r
  ci/sweep.sh --site sites/slurm.py --parts 8 --output DIR

The payload is the benchmark in the package, python -m acl_qlinear.bench, one task per NUMA node.
"""

import json
from pathlib import Path

import reframe as rfm
import reframe.utility.sanity as sn
import reframe.utility.typecheck as typ
from reframe.core.builtins import run_before, sanity_function, variable

HERE = Path(__file__).parent


class Bench(rfm.RunOnlyRegressionTest):
    """One task per NUMA node, bound to it, each with a report of its own."""

    # What runs Python on a node; the environment's module brings it.
    program = variable(str, value="python3")
    # More options of acl_qlinear.bench.
    bench_options = variable(typ.List[str], value=[])
    valid_systems = ["*"]
    valid_prog_environs = ["+acl-qlinear"]
    executable = "bash"

    def call(self, *options: str) -> None:
        """Sets what each task runs."""
        words = " ".join([self.program, "-m acl_qlinear.bench", *options, *self.bench_options])
        self.executable_opts = ["-c", f"'{words} --json report-${{SLURM_PROCID:-0}}.json'"]
        self.postrun_cmds = ['echo "ended with $?"']

    @run_before("run")
    def lay_out(self) -> None:
        processor = self.current_partition.processor
        nodes = processor.num_numa_nodes or 1
        self.num_tasks = self.num_tasks_per_node = nodes
        self.num_cpus_per_task = max(1, (processor.num_cpus or 1) // nodes)
        if nodes > 1:
            self.job.launcher.options += ["--cpu-bind=ldoms"]

    def ended(self) -> sn.deferrable:
        """Whether the tasks ended with status 0."""
        return sn.assert_found(r"^ended with 0$", self.stdout, "the benchmark failed, or was ended")

    def reports(self) -> list[dict]:
        """The tasks' reports. Raises SanityError when one is missing."""
        files = [Path(self.stagedir) / f"report-{task}.json" for task in range(self.num_tasks)]
        for file in files:
            if not file.exists():
                raise rfm.core.exceptions.SanityError(f"{file.name} is missing: a task wrote no report")
        return [json.loads(file.read_text()) for file in files]


@rfm.simple_test
class Correctness(Bench):
    """Results are right on every NUMA node's CPUs."""

    @run_before("run")
    def prepare(self) -> None:
        self.call("--check")

    @sanity_function
    def right(self) -> sn.deferrable:
        found = sn.count(sn.findall(r"results are right", self.stdout))
        return sn.all([self.ended(), sn.assert_eq(found, self.num_tasks)])


@rfm.simple_test
class Speed(Bench):
    """What calls cost, the slowest task's, against the references of this system and partition."""

    require_reference = True
    # JSON: {"SYSTEM:PARTITION": {"tolerance": 0.1, "costs": {"8×768×768 u8 tensor": 1.2e-5}}}
    references = variable(str, value=str(HERE / "references.json"))

    @run_before("run")
    def prepare(self) -> None:
        self.call("--preset smoke")

    @sanity_function
    def right(self) -> sn.deferrable:
        return sn.all([self.ended(), sn.assert_eq(len(self.reports()), self.num_tasks)])

    def costs(self) -> dict[str, list[float]]:
        """Our cost of each case, by task."""
        found: dict[str, list[float]] = {}
        for report in self.reports():
            for case in report["cases"]:
                name = f"{'×'.join(map(str, case['shape']))} {case['kind']}"
                found.setdefault(name, []).append(case["acl"][report["measure"]])
        return found

    @run_before("performance")
    def compare(self) -> None:
        where = self.current_partition.fullname
        measured, unit = self.costs(), self.reports()[0]["measure"].replace(" ", "_")
        known = json.loads(Path(self.references).read_text()).get(where)
        if known is None:
            slowest = {name: max(costs) for name, costs in measured.items()}
            entry = json.dumps({where: {"tolerance": 0.1, "costs": slowest}}, ensure_ascii=False)
            raise rfm.core.exceptions.PerformanceError(f"{self.references} has no {where}; measured was: {entry}")

        # ReFrame would only warn of a line that is missing.
        names = dict.fromkeys([*known["costs"], *measured])
        if missing := [name for name in names if len(measured.get(name, [])) != self.num_tasks]:
            raise rfm.core.exceptions.PerformanceError(f"a report has no line for {', '.join(missing)}")
        self.perf_variables = {name: sn.make_performance_function(sn.max(measured[name]), unit) for name in names}
        limits = {name: (value, None, known["tolerance"], unit) for name, value in known["costs"].items()}
        self.reference = {where: limits}


@rfm.simple_test
class Sweep(Bench):
    """One part of a preset's grid, on one node."""

    part = variable(str, value="1/1")
    preset = variable(str, value="paper")
    keep_files = ["report-0.json"]

    @run_before("run")
    def prepare(self) -> None:
        self.num_tasks = self.num_tasks_per_node = 1
        self.call(f"--preset {self.preset} --part {self.part}")

    @sanity_function
    def right(self) -> sn.deferrable:
        return sn.all([self.ended(), sn.assert_eq(len(self.reports()), 1)])


@rfm.simple_test
class Merge(Bench):
    """The parts' reports, put together into sweep.json and sweep.png."""

    parts = variable(typ.List[str], value=[])
    keep_files = ["sweep.json", "sweep.png"]

    @run_before("run")
    def prepare(self) -> None:
        self.num_tasks = self.num_tasks_per_node = 1
        words = f"{self.program} -m acl_qlinear.bench --merge {' '.join(self.parts)} --json sweep.json --png sweep.png"
        self.executable_opts = ["-c", f"'{words}'"]
        self.postrun_cmds = ['echo "ended with $?"']

    @sanity_function
    def right(self) -> sn.deferrable:
        return self.ended()
