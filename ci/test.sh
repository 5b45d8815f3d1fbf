#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the tests, after building what they need; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.test "$@"
