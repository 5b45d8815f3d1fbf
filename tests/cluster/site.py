"""The generic site file, for the emulated cluster of test_slurm.py, whose nodes have a CPU each."""

import runpy
from pathlib import Path

site_configuration = runpy.run_path(str(Path(__file__).parents[1] / "reframe/sites/slurm.py"))["site_configuration"]
site_configuration["systems"][0]["partitions"][0]["processor"] |= {
    "num_cpus": 1, "topology": {"numa_nodes": ["0x1"]},
}
