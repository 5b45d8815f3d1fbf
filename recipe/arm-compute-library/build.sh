#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The recipe's build script: build_acl.sh does the work.
set -euo pipefail

if [[ ${1:-} == --help ]]; then
    echo "Run by rattler-build or conda-build for recipe/arm-compute-library."
    exit
fi

# The cache is shared between builds in other folders, and knows a compiler by its contents.
export CCACHE_COMPILERCHECK=content CCACHE_NOHASHDIR=1 CCACHE_BASEDIR=/
[[ ${CCACHE_DIR:-} ]] || unset CCACHE_DIR

# Below the folder of the build: the relative paths that ccache compares are then the same in each.
TMPDIR=$PWD ./build_acl.sh --variant "$ACL_VARIANT" --operators "$ACL_OPERATORS" --source acl.tar \
    --prefix "$PREFIX" --jobs "${CPU_COUNT:-$(nproc)}"
cp -R "$PREFIX/share/arm-compute-library/LICENSES" .
