#!/usr/bin/env bash
# Runs the tests, after building what they need; arguments go to pytest.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/test.sh [--channel URL]... [--all] [PYTEST ARGUMENT]...

Builds the packages (ci/build.sh --no-table --channel URL...; nothing is done twice), then
runs the linters and the tests, a file of them on each processor, four at most. Without pytest's
arguments, all of them but the slowest parts.

  --all  the slowest parts too: packages are compiled again without ccache (docs/trust.md)
HELP
    exit
fi

# Debian's Slurm and image tools; Lmod and Environment Modules, which it does not install side by side, come otherwise.
# shellcheck source=ci/tools.sh
NEEDS="abidiff=abigail-tools diffoscope=diffoscope-minimal ssh-keygen=openssh-client pkg-config=pkg-config \
munged=munge slurmctld=slurmctld slurmd=slurmd srun=slurm-client skopeo=skopeo umoci=umoci buildah=buildah" \
    source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
cd "$ci/.."
channels=()
while [[ ${1:-} == --channel ]]; do
    channels+=("$1" "${2:?--channel needs a value}")
    shift 2
done
"$PYTHON" -m acl_ci.build --no-table "${channels[@]}"
exec "$PYTHON" -m pytest -n "$(nproc)" --maxprocesses 4 --dist loadfile "${@:-tests}"
