#!/usr/bin/env bash
# Builds a package again from the recipe inside it, and says whether it is the same; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/rebuild.sh [--channel URL]... [--no-ccache] PACKAGE

Builds PACKAGE, a .conda file in a channel that ci/build.sh or ci/publish.sh made, again from the
recipe and the sources inside it, in another folder. Prints "equal" and exits with 0 when the
result is the same byte for byte; else shows the difference with diffoscope and exits with 1.

  --channel URL  where compilers, Python and PyTorch come from, as for ci/build.sh
  --no-ccache    compile everything, whatever was compiled before
HELP
    exit
fi

# shellcheck source=ci/tools.sh
NEEDS="diffoscope=diffoscope-minimal" source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.rebuild "$@"
