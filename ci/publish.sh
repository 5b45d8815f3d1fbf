#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Puts packages into a channel that is a folder, whole or not at all; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.publish "$@"
