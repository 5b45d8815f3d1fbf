#!/usr/bin/env bash
# Pins what comes from Debian and from conda channels by hash; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/lock.sh

Writes ci/debian.lock: the sha256 of every package and source of Debian's that the bootstrap channel
and the emulator are made from. Needed when Debian has released an update; until its result is
committed, every command refuses what Debian offers.

Writes env/lock: every package that the packages in dist/channel were built with or need, by sha256,
for conda, mamba and pixi. Needed after ci/build.sh has built with other ones.
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.lock "$@"
