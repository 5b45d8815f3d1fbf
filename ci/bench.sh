#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Measures everything that is promised about speed and memory, and says what is kept; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.bench "$@"
