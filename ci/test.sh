#!/usr/bin/env bash
# Runs the tests, after building what they need; arguments go to pytest.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/test.sh [PYTEST ARGUMENT]...

Builds the packages (ci/build.sh --no-table; nothing is done twice), then runs the linters
and the tests. Without arguments, all of them.
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
cd "$ci/.."
"$PYTHON" -m acl_ci.build --no-table
exec "$PYTHON" -m pytest "${@:-tests}"
