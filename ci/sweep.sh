#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Measures a preset's grid on many nodes of a cluster, with ReFrame; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.sweep "$@"
