#!/usr/bin/env bash
# Makes one archive with a channel that needs no other, for clusters without internet; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/bundle.sh [--spec SPEC]... --key KEY ARCHIVE

Writes ARCHIVE, a .tar file with a signed channel, acl-qlinear-channel/, that has acl-qlinear from
dist/channel, numpy, matplotlib, and all that they need, Python and PyTorch too, for every
microarchitecture. ci/deploy-module.sh --channel takes it as it is. Where it is unpacked:

  conda create -n NAME --offline --override-channels -c file://$PWD/acl-qlinear-channel acl-qlinear

  --key KEY    the private OpenSSH key that signs the channel's manifest; ci/verify.sh checks it
  --spec SPEC  what to put in instead; may be repeated
HELP
    exit
fi

# shellcheck source=ci/tools.sh
NEEDS="ssh-keygen=openssh-client" source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.bundle "$@"
