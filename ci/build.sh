#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds both packages into dist/channel, installs them and prints the table; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.build "$@"
