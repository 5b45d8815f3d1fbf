#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Pins what comes from Debian and from conda channels by hash; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.lock "$@"
