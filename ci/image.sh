#!/usr/bin/env bash
# Makes a container image from lock files, without a container engine; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/image.sh [--lock NAME] [--microarchitecture M] DIR

Writes an image for linux/arm64 with Python, PyTorch and acl-qlinear: DIR is an OCI layout, DIR.tar an
archive for `docker load -i DIR.tar`, `podman load -i DIR.tar`, `apptainer build acl-qlinear.sif
docker-archive:DIR.tar`. The same inputs give the same digest, which is printed first.

  --lock NAME            an environment in env/lock (default: use-pytorch2.9)
  --microarchitecture M  armv8_2a (default; for every Armv8.2-A CPU) or neoverse_v1
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.image "$@"
