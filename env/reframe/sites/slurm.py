# SPDX-License-Identifier: MIT
"""A generic AArch64 cluster with Slurm and Lmod: write your partition's name and its processors here."""

site_configuration = {
    "systems": [
        {
            "name": "cluster",
            "descr": "AArch64 nodes behind Slurm",
            "hostnames": [".*"],
            # tmod4 for Environment Modules.
            "modules_system": "lmod",
            "partitions": [
                {
                    "name": "arm",
                    # squeue needs no accounting; with it, slurm also sees how jobs ended.
                    "scheduler": "squeue",
                    "launcher": "srun",
                    # ReFrame itself runs a job again whose node died.
                    "access": ["--partition=arm", "--no-requeue"],
                    "environs": ["acl-qlinear"],
                    "max_jobs": 100,
                    # Of one node, a Graviton3 here: a task runs on each NUMA node, each a mask of CPUs.
                    "processor": {
                        "arch": "neoverse_v1",
                        "num_cpus": 64,
                        "topology": {"numa_nodes": ["0xffffffffffffffff"]},
                    },
                }
            ],
        }
    ],
    "environments": [{"name": "acl-qlinear", "modules": ["acl-qlinear"], "features": ["acl-qlinear"]}],
}
