# SPDX-License-Identifier: MIT
"""The generic site file for the cluster of conftest.py, whose nodes have a CPU each, or as many as NUMA_NODES says."""

import os
import runpy
from pathlib import Path

nodes = int(os.environ.get("NUMA_NODES", "1"))
site_configuration = runpy.run_path(str(Path(__file__).parents[2] / "env/reframe/sites/slurm.py"))["site_configuration"]
site_configuration["systems"][0]["partitions"][0]["processor"] |= {
    "num_cpus": nodes,
    "topology": {"numa_nodes": [hex(1 << node) for node in range(nodes)]},
}
