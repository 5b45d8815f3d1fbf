#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The recipe's build script: a wheel, made by CMake through scikit-build-core, then installed.
set -euo pipefail

if [[ ${1:-} == --help ]]; then
    echo "Run by rattler-build or conda-build for recipe/acl-qlinear."
    exit
fi

# The Python of the build machine; the target's may not run here.
python=${BUILD_PREFIX:-$PREFIX}/bin/python
torch=$("$python" -c 'import glob, sys; print(*glob.glob(sys.argv[1] + "/lib/python3*/site-packages/torch"))' "$PREFIX")

# PyTorch's headers write their paths into error messages.
for place in "$PREFIX" "${BUILD_PREFIX:-$PREFIX}" "$PWD"; do
    CXXFLAGS="${CXXFLAGS:-} -ffile-prefix-map=$place/="
done
export CXXFLAGS
# The engine's objects are the same for every PyTorch. A compiler is known by its contents. Paths stay as they
# are, since -ffile-prefix-map is for whole ones.
export CCACHE_COMPILERCHECK=content CCACHE_NOHASHDIR=1
[[ ${CCACHE_DIR:-} ]] || unset CCACHE_DIR
export CMAKE_CXX_COMPILER_LAUNCHER=ccache
export _PYTHON_HOST_PLATFORM=linux-aarch64
export CMAKE_ARGS="${CMAKE_ARGS:-} -DCMAKE_COMPILE_WARNING_AS_ERROR=ON -DCMAKE_PREFIX_PATH=$PREFIX;$torch -DCMAKE_FIND_ROOT_PATH=$PREFIX;$torch"
"$python" -m pip wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir dist .
# By name, since pip writes down the path of a file that it is given.
"$python" -m pip install --no-deps --no-index --only-binary=:all: --platform linux_aarch64 \
    --find-links dist --target "$SP_DIR" acl-qlinear
mkdir -p "$PREFIX/bin"
mv "$SP_DIR/bin/acl-qlinear" "$PREFIX/bin"
rmdir "$SP_DIR/bin"
