#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks a channel that ci/publish.sh made, with nothing but ssh-keygen and sha256sum; see --help.
set -euo pipefail

if [[ " $* " == *" --help "* ]]; then
    cat <<'HELP'
Usage: ci/verify.sh CHANNEL SIGNERS

Checks the signature of CHANNEL's manifest, and the SHA-256 of every package and of the index.
Prints the channel's serial and date, and refuses one that is older than it has seen. What it has
seen is in ${XDG_STATE_HOME:-~/.local/state}/acl-qlinear.

  CHANNEL  the folder of a channel that ci/publish.sh made, or a copy of it
  SIGNERS  whom you trust: lines of a name and a public key, as in ssh-keygen's ALLOWED SIGNERS:
           releases@example.org ssh-ed25519 AAAA...

The same by hand, in CHANNEL:
  ssh-keygen -Y verify -f SIGNERS -I NAME -n acl-qlinear-channel -s SHA256SUMS.sig < SHA256SUMS
  sha256sum --check --strict SHA256SUMS
HELP
    exit
fi

fail() {
    echo "error: $*" >&2
    exit 1
}

(($# == 2)) || fail "$# arguments given, expected CHANNEL and SIGNERS; see --help"
signers=$(realpath -e -- "$2") || fail "SIGNERS is '$2', expected a file with names and public keys"
cd -- "$1" || fail "CHANNEL is '$1', expected a folder"
[[ -f SHA256SUMS && -f SHA256SUMS.sig ]] ||
    fail "$PWD has no SHA256SUMS and SHA256SUMS.sig, expected a channel that ci/publish.sh made"

# The first of those with this key; nothing where there is none, which verify refuses.
name=$(ssh-keygen -Y find-principals -f "$signers" -s SHA256SUMS.sig 2>/dev/null | head -1) || true
ssh-keygen -q -Y verify -f "$signers" -I "$name" -n acl-qlinear-channel -s SHA256SUMS.sig < SHA256SUMS ||
    fail "SHA256SUMS of $PWD is not signed by anyone in $signers: it or the signature was altered, or another key signed"
sha256sum --quiet --strict --check SHA256SUMS ||
    fail "files of $PWD are not what $name signed (above): get them again"

# Packages that no index names are an unfinished publish; anything else could be read as an index.
while IFS= read -r file; do
    case $file in
        *.conda | *.conda.*.json | *.partial | .lock) echo "not published yet: $file" ;;
        *) fail "$PWD/$file is not in SHA256SUMS: it was added by someone else; remove it" ;;
    esac
done < <(comm -13 <(cut -c67- SHA256SUMS | sort) \
    <(find -L . -path ./.index -prune -o -type f ! -name 'SHA256SUMS*' -printf '%P\n' | grep -vx .lock | sort))
# An old copy is signed as well, and lacks what was mended since.
read_field() { sed -n "s/^$1 //p" SERIAL; }
[[ -f SERIAL ]] || fail "$PWD has no SERIAL: an older ci/publish.sh made it; publish to it again"
serial=$(read_field serial)
state=${XDG_STATE_HOME:-$HOME/.local/state}/acl-qlinear
seen=$state/$(printf '%s\n' "$name" "$(read_field channel)" | sha256sum | cut -c-32)
if [[ -f $seen ]] && (($(sed -n 's/^serial //p' "$seen") > serial)); then
    fail "$PWD has serial $serial of $(read_field date), and serial $(sed -n 's/^serial //p' "$seen") of" \
        "$(sed -n 's/^date //p' "$seen") was seen: it is an old copy; get it again, or remove $seen"
fi
mkdir -p "$state"
cp SERIAL "$seen.$$" && mv "$seen.$$" "$seen"
echo "serial $serial, $(read_field date)"
echo "verified: $(wc -l < SHA256SUMS) files, signed by $name"
