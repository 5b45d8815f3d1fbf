#!/usr/bin/env bash
# Writes Spack's and EasyBuild's descriptions of the packages; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/ecosystems.sh

Writes env/spack, a Spack package repository, and env/easybuild, easyconfigs, from env/templates and
the pins in recipe/variants.yaml. Needed after either was changed.
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.ecosystems "$@"
