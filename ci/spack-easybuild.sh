#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Writes Spack's and EasyBuild's descriptions of the packages; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.spack_easybuild "$@"
