#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds a package again from the recipe inside it, and says whether it is the same; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.rebuild "$@"
