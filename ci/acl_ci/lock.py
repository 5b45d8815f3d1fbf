"""ci/lock.sh: pins all that is taken from Debian, for both kinds of build machines, by hash."""


from . import debian
from .bootstrap import BOOTSTRAP, DEB_ARCH
from .cache import command


def locked_files() -> dict[str, str]:
    """The sha256 of what Debian has today of what is used, by SUITE/ARCHITECTURE/FILE."""
    found: dict[str, str] = {}
    for spec in [*BOOTSTRAP["debian"], {**BOOTSTRAP["emulated_root"], "kind": "target"}]:
        suite, names = spec["suite"], spec["packages"]
        for machine, arch in DEB_ARCH.items():
            if spec["kind"] in ("tool", "both") or machine == "aarch64":
                remotes = debian.offered(suite, arch, names[machine] if isinstance(names, dict) else names)
                found |= {f"{suite}/{arch}/{remote.file}": remote.sha256 for remote in remotes}
    suite = BOOTSTRAP["sources"]["suite"]
    remote = debian.offered_source(suite, "qemu")
    return {**found, f"{suite}/source/{remote.file}": remote.sha256}


def main() -> None:
    lines = [f"{sha256}  {name}\n" for name, sha256 in sorted(locked_files().items())]
    partial = debian.LOCK.with_name(f"{debian.LOCK.name}.partial")
    header = "# sha256 of what is taken from Debian, by SUITE/ARCHITECTURE/FILE; written by ci/lock.sh.\n"
    partial.write_text(header + "".join(lines))
    partial.replace(debian.LOCK)
    print(f"{debian.LOCK}: {len(lines)} files")


if __name__ == "__main__":
    command(main)
