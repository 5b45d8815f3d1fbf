# SPDX-License-Identifier: MIT
"""Makes a container image from lock files, without a container engine.

Writes an image for linux/arm64 with Python, PyTorch and acl-qlinear: DIR is an OCI layout, DIR.tar an
archive for `docker load -i DIR.tar`, `podman load -i DIR.tar`, `apptainer build acl-qlinear.sif
docker-archive:DIR.tar`. The same inputs give the same digest, which is printed first.
"""

from pathlib import Path

from ..base.messages import CiError
from ..base.pins import TORCH, VARIANTS
from ..base.processes import run_command
from ..build import dist
from ..deploy import image
from . import argument_parser


def main() -> None:
    default = f"use-pytorch{TORCH}"
    parser = argument_parser("image.sh", __doc__)
    parser.add_argument("output", type=Path, metavar="DIR")
    parser.add_argument(
        "--lock", default=default, metavar="NAME", help=f"an environment in env/lock (default: {default})"
    )
    parser.add_argument(
        "--microarchitecture",
        choices=VARIANTS["microarchitecture"],
        default="armv8_2a",
        help="armv8_2a (default) is for every Armv8.2-A CPU",
    )
    options = parser.parse_args()
    output = options.output.absolute()
    if not output.parent.is_dir():
        raise CiError(f"DIR is {options.output}, expected a folder in one that exists")
    if output.exists() and not (output / "oci-layout").exists():
        raise CiError(f"{output} is there and is no OCI layout; give another DIR, or remove it")
    if not dist.CHANNEL.is_dir():
        raise CiError(f"{dist.CHANNEL} is not there, whose packages go into the image: run ci/build.sh")
    try:
        made = image.make_image(output, options.lock, options.microarchitecture)
    except OSError as error:
        raise CiError(f"{output} cannot be made: {error}; make room, or give another DIR") from error
    archive = output.with_name(f"{output.name}.tar")
    size, unpacked = archive.stat().st_size / 1e6, made["unpacked"] / 1e6
    print(f"{made['digest']}\n{output}, and {archive}: {size:.0f} MB, unpacked {unpacked:.0f} MB")
    blobs = zip(("BASE", "ENVIRONMENT", "PACKAGES"), made["layers"], strict=True)
    arguments = [f"--build-arg {name}={digest.removeprefix('sha256:')}" for name, digest in blobs]
    print(f"for env/container/Containerfile: {' '.join(arguments)}")


if __name__ == "__main__":
    run_command(main)
