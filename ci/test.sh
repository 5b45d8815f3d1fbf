#!/usr/bin/env bash
# Runs the tests, after building what they need; see --help.
set -euo pipefail
# Debian's Slurm and image tools; Lmod and Environment Modules, which it does not install side by side, come otherwise.
# shellcheck source=ci/tools.sh
NEEDS="abidiff=abigail-tools diffoscope=diffoscope-minimal ssh-keygen=openssh-client pkg-config=pkg-config \
munged=munge slurmctld=slurmctld slurmd=slurmd srun=slurm-client skopeo=skopeo umoci=umoci buildah=buildah" \
    source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.test "$@"
