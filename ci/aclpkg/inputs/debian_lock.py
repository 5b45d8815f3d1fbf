"""What Debian has today of what is used, for ci/debian.lock."""

from . import debian
from .bootstrap import BOOTSTRAP, DEB_ARCH


def locked_files() -> dict[str, str]:
    """The sha256 of what Debian has today of what is used, by SUITE/ARCHITECTURE/FILE."""
    found: dict[str, str] = {}
    roots = [{**BOOTSTRAP[name], "kind": "target"} for name in ("emulated_root", "image_root", "module_systems")]
    for spec in [*BOOTSTRAP["debian"], *roots]:
        suite, names = spec["suite"], spec["packages"]
        for machine, arch in DEB_ARCH.items():
            if spec["kind"] in ("tool", "both") or machine == "aarch64":
                remotes = debian.offered(suite, arch, names[machine] if isinstance(names, dict) else names)
                found |= {f"{suite}/{arch}/{remote.file}": remote.sha256 for remote in remotes}
    suite = BOOTSTRAP["sources"]["suite"]
    remote = debian.offered_source(suite, "qemu")
    return {**found, f"{suite}/source/{remote.file}": remote.sha256}
