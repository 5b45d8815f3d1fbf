#!/usr/bin/env bash
# Pins all that is taken from Debian by hash, in ci/debian.lock; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/lock.sh

Writes ci/debian.lock: the sha256 of every package and source of Debian's that the bootstrap channel
and the emulator are made from. Needed when Debian has released an update; until its result is
committed, every command refuses what Debian offers.
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.lock "$@"
