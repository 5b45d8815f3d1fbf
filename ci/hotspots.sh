#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Shows which functions a layer's call spends its instructions and cycles in; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.hotspots "$@"
