#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Deploys acl-qlinear as an environment module, for every microarchitecture; see --help.
set -euo pipefail
# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m aclpkg.commands.deploy_module "$@"
