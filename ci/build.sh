#!/usr/bin/env bash
# Builds both packages into dist/channel, installs them and prints the table; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/build.sh [--channel URL]... [--profile qlinear|full] [--no-table]

Builds Arm Compute Library for both microarchitectures and acl-qlinear for every pinned
PyTorch, leaves a conda channel in dist/channel, installs acl-qlinear from it into a prefix
per microarchitecture, and prints a table of errors and speed.

  --channel URL   take compilers, Python and PyTorch from this conda channel; may be repeated;
                  'bootstrap' is one made of Debian's packages and PyPI's wheels (default:
                  conda-forge where it is reached, else bootstrap)
  --profile P     how much of ACL to build: qlinear (default) or full
  --no-table      stop when the channel is there

What is missing on the machine is installed with apt, as root; elsewhere it is named.
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.build "$@"
