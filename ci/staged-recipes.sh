#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Writes the recipes as conda-forge takes them; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.staged_recipes "$@"
