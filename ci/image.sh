#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Makes a container image from lock files, without a container engine; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.image "$@"
