#!/usr/bin/env bash
# Measures a preset's grid on many nodes of a cluster, with ReFrame; see --help.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: ci/sweep.sh --site FILE --parts N --output DIR [--preset P] [REFRAME ARGUMENT]...

Measures the grid of preset P (default: paper) in N parts, each a job on a node, and puts the parts
together into DIR/sweep.json and DIR/sweep.png. A part whose node dies is run again, three times
at most. Run it where jobs are submitted.

  --site FILE   ReFrame's configuration of the site: see tests/reframe/sites/
  --parts N     how many parts; more than nodes is no loss, since they wait
  --output DIR  where results go; ReFrame's own files are in DIR/reframe
HELP
}

fail() {
    echo "error: $*" >&2
    exit 1
}

site='' parts='' output='' preset=paper more=()
while (($#)); do
    case $1 in
        --help) usage; exit ;;
        --site | --parts | --output | --preset)
            (($# >= 2)) || fail "$1 needs a value; see --help"
            printf -v "${1#--}" %s "$2"
            shift 2 ;;
        *) more+=("$1"); shift ;;
    esac
done
[[ -f $site ]] || fail "--site is '$site', expected ReFrame's configuration of the site, such as tests/reframe/sites/slurm.py"
[[ $parts =~ ^[1-9][0-9]*$ ]] || fail "--parts is '$parts', expected a number of 1 or more"
[[ $output ]] || fail "--output is missing: the directory for the results"
mkdir -p "$output"
output=$(cd "$output" && pwd)

# shellcheck source=ci/tools.sh
source "$(dirname "${BASH_SOURCE[0]}")/tools.sh"
run_reframe() {
    reframe -C "$site" -c "$ci/../tests/reframe/acl_qlinear_checks.py" --prefix "$output/reframe" --keep-stage-files \
        -r "${more[@]}" "$@"
}

each=$(seq -s , -f "%g/$parts" "$parts")
rm -rf "$output/reframe"
run_reframe -n Sweep -S "Sweep.preset=$preset" -P "part=$each" --max-retries 3 ||
    fail "parts of the sweep failed four times; ReFrame's messages are above, its files in $output/reframe"
reports=$(find "$output/reframe/output" -name report-0.json | sort | paste -sd ,)
run_reframe -n Merge -S "Merge.parts=$reports"
for file in sweep.json sweep.png; do
    found=$(find "$output/reframe/output" -name "$file")
    mv "$found" "$output/$file"
done
echo "$output/sweep.json and $output/sweep.png: preset $preset, $parts parts"
