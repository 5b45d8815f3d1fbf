# SPDX-License-Identifier: MIT
"""Measures a preset's grid on many nodes of a cluster, with ReFrame; other arguments go to it.

Measures the grid of preset P in N parts, each a job on a node, and puts the parts together into
DIR/sweep.json and DIR/sweep.png. A part whose node dies is run again, three times at most. Run it
where jobs are submitted.
"""

import shutil
import subprocess
from pathlib import Path

from ..base.messages import CiError
from ..base.paths import ROOT
from ..base.processes import run_command
from . import argument_parser


def main() -> None:
    parser = argument_parser("sweep.sh", __doc__)
    parser.add_argument(
        "--site",
        required=True,
        type=Path,
        metavar="FILE",
        help="ReFrame's configuration of the site: see env/reframe/sites/",
    )
    parser.add_argument(
        "--parts",
        required=True,
        type=int,
        metavar="N",
        help="how many parts; more than nodes is no loss, since they wait",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="where results go; ReFrame's own files are in DIR/reframe",
    )
    parser.add_argument("--preset", default="paper", metavar="P", help="default: paper")
    options, more = parser.parse_known_args()
    if not options.site.is_file():
        raise CiError(
            f"--site is '{options.site}', expected ReFrame's configuration of the site, "
            "such as env/reframe/sites/slurm.py"
        )
    if options.parts < 1:
        raise CiError(f"--parts is {options.parts}, expected a number of 1 or more")
    options.output.mkdir(parents=True, exist_ok=True)
    output = options.output.resolve()
    files = output / "reframe"

    def run_reframe(*words: str) -> int:
        """ReFrame's status; it prints as it goes."""
        checks = ROOT / "env/reframe/acl_qlinear_checks.py"
        places = ["-C", options.site, "-c", checks, "--prefix", files, "--keep-stage-files"]
        return subprocess.run(["reframe", *places, "-r", *more, *words], check=False).returncode

    shutil.rmtree(files, ignore_errors=True)
    parts = ",".join(f"{number}/{options.parts}" for number in range(1, options.parts + 1))
    preset = f"Sweep.preset={options.preset}"
    if run_reframe("-n", "Sweep", "-S", preset, "-P", f"part={parts}", "--max-retries", "3"):
        raise CiError(f"parts of the sweep failed four times; ReFrame's messages are above, its files in {files}")
    reports = ",".join(sorted(map(str, files.glob("output/**/report-0.json"))))
    if run_reframe("-n", "Merge", "-S", f"Merge.parts={reports}"):
        raise CiError(f"the parts cannot be put together; ReFrame's messages are above, its files in {files}")
    for name in ("sweep.json", "sweep.png"):
        shutil.move(next(files.glob(f"output/**/{name}")), output / name)
    print(f"{output}/sweep.json and {output}/sweep.png: preset {options.preset}, {options.parts} parts")


if __name__ == "__main__":
    run_command(main)
