#!/usr/bin/env bash
# Shows which functions a layer's call spends its instructions and cycles in; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/profile.sh MxKxN KIND [--engine acl|torch|fp32] [--microarchitecture M] [--cpu CPU] [--rows N]

Counts, under emulation, the instructions and modelled Neoverse V1 cycles of one call of a
linear layer by function: ci/profile.sh 8x768x768 "u8 channel". Needs the channel of ci/build.sh.

  --engine E             ours (acl, the default), PyTorch's int8 layer or its fp32 one
  --microarchitecture M  armv8_2a or neoverse_v1 (default)
  --cpu CPU              the CPU to emulate (default: neoverse-v1)
  --rows N               how many functions to show (default: 25)
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.profile "$@"
