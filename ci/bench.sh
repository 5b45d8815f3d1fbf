#!/usr/bin/env bash
# Measures everything that is promised about speed and memory, and says what is kept; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/bench.sh [--preset P]... [--builds] [--keep]

Runs the presets of `python -m acl_qlinear.bench` in prefixes installed from dist/channel (made by
ci/build.sh where it is missing) and prints their tables, what is promised and whether it is kept,
and the neoverse_v1 build against armv8_2a on the same CPU. Leaves JSON and PNG files in
dist/bench; results.json has all of it.

  --preset P  only this one of smoke, stream, threads, memory and paper; may be repeated. paper
              takes half an hour when emulated, the others a few minutes together
  --builds    also time build_acl.sh, cold and with a warm ccache, for both profiles of the
              variant armv8.2-a (half an hour on 2 cores)
  --keep      write tests/kept_costs.json, which ci/test.sh compares with

Exits with 1 when a promise is not kept.
HELP
    exit
fi

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
exec "$PYTHON" -m acl_ci.bench "$@"
