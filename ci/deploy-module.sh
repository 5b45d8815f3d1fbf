#!/usr/bin/env bash
# Deploys acl-qlinear as an environment module, for every microarchitecture; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/deploy-module.sh --root DIR [--channel C]... [--version V]
       ci/deploy-module.sh --root DIR --list
       ci/deploy-module.sh --root DIR --remove V

Installs acl-qlinear, with Python and PyTorch, and Arm Compute Library alone, below DIR, for every
microarchitecture, and writes modulefiles for Lmod and for Environment Modules 5. A module picks the
build for the node's CPU when it is loaded. The version becomes the default; older ones stay.

  --channel C  a channel (address or folder), or a bundle of ci/bundle.sh, which needs no other;
               may be repeated (default: dist/channel, and what it was built with)
  --version V  acl-qlinear's version (default: the newest)
  --list       what is deployed
  --remove V   takes acl-qlinear V away, and the ACL that only it needed
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.modules "$@"
