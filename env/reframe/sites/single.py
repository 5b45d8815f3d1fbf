# SPDX-License-Identifier: MIT
"""One AArch64 machine, without a scheduler, in an environment that has acl-qlinear."""

site_configuration = {
    "systems": [
        {
            "name": "single",
            "descr": "this machine",
            "hostnames": [".*"],
            "partitions": [
                {"name": "here", "scheduler": "local", "launcher": "local", "environs": ["acl-qlinear"], "max_jobs": 1}
            ],
        }
    ],
    "environments": [{"name": "acl-qlinear", "features": ["acl-qlinear"]}],
}
