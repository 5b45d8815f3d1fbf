#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes one archive with a channel that needs no other, for clusters without internet; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.bundle "$@"
