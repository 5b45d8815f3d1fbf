#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One scons build of Arm Compute Library (ACL) as a shared library, into a prefix.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: build_acl.sh --variant V --source DIR|TARBALL --prefix DIR [--operators O] [--jobs N]

Builds Arm Compute Library as a shared library and installs it.

  --variant V    armv8.2-a    every Armv8.2-A core; dot product, i8mm and SVE kernels are
                              picked at run time
                 neoverse-v1  SVE, i8mm and bf16 compiled in; Neoverse V1 and its supersets
  --source S     ACL's source: a directory (left as it is), or a tarball whose sha256 is
                 in recipe/variants.yaml or recipe/debian.yaml
  --prefix DIR   where to install: lib/, include/arm-compute-library/, lib/pkgconfig/,
                 lib/cmake/, share/arm-compute-library/
  --operators O  qlinear (default): those that int8 GEMM needs; full: all of ACL
  --jobs N       compile N files at once (default: the number of processors)
  --help         this text

On AArch64 it builds natively, elsewhere it cross-compiles. CC, CXX, CFLAGS, CXXFLAGS and LDFLAGS
are obeyed; without them the compiler is g++ or aarch64-linux-gnu-g++. ccache is used where
it is installed. Needs scons and Python 3.
HELP
}

fail() {
    echo "build_acl.sh: $*" >&2
    exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pins=("$here"/recipe/{variants,debian}.yaml)
variant='' source='' prefix='' operators=qlinear jobs=$(nproc)

while (($#)); do
    case $1 in
        --help) usage; exit 0 ;;
        # --profile is an older name of --operators.
        --variant | --source | --prefix | --operators | --profile | --jobs)
            (($# >= 2)) || fail "$1 needs a value; see --help"
            [[ $1 != --profile ]] || set -- --operators "${@:2}"
            printf -v "${1#--}" %s "$2"
            shift 2 ;;
        *) fail "unknown argument '$1'; see --help" ;;
    esac
done

[[ $source ]] || fail "--source is missing: the directory or tarball with ACL's source"
[[ $prefix ]] || fail "--prefix is missing: the directory to install into"
[[ $jobs =~ ^[1-9][0-9]*$ ]] || fail "--jobs is '$jobs', expected a number of 1 or more"

# data_types and data_layouts: multi_isa builds need all of them.
case $operators in
    qlinear) build_config='{"operators":["Gemm","Conv2d","DepthwiseConv2d","MatMul","Quantize","Dequantize","Activation","Mul","ElementwiseBinary","Transpose","Add","Sub"],"data_types":["all"],"data_layouts":["all"]}' ;;
    full) build_config='' ;;
    *) fail "--operators is '$operators', expected qlinear or full" ;;
esac

case $variant in
    armv8.2-a)
        march=armv8.2-a+fp16
        variant_options=(arch=armv8.2-a multi_isa=1)
        variant_flags='' ;;
    neoverse-v1)
        # scons knows Armv8.6-A with SVE, which has instructions that a V1 lacks (frint32,
        # the fp32 matrix product): the last -march on the command line is the one that counts.
        march=armv8.4-a+sve+i8mm+bf16+fp16
        variant_options=(arch=armv8.6-a-sve multi_isa=0 custom_options=disable_mmla_fp)
        variant_flags="-march=$march -mtune=neoverse-v1" ;;
    '') fail "--variant is missing: armv8.2-a or neoverse-v1" ;;
    *) fail "--variant is '$variant', expected armv8.2-a or neoverse-v1" ;;
esac

if [[ $(uname -m) == aarch64 ]]; then
    build=native triplet=''
else
    build=cross_compile triplet=aarch64-linux-gnu-
fi
export CC=${CC:-${triplet}gcc} CXX=${CXX:-${triplet}g++}
for program in python3 scons "$CC" "$CXX"; do
    command -v "$program" >/dev/null || fail "program '$program' is not on PATH; install it, or set CC and CXX"
done
machine=$("$CXX" -dumpmachine)
[[ $machine == aarch64-* ]] || fail "compiler '$CXX' makes programs for $machine, expected aarch64"

# Everything happens in one directory that goes away; the prefix gets finished files only.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/acl" "$work/install"

if [[ -d $source ]]; then
    source_sha256=''
    cp -R "$source/." "$work/acl"
    chmod -R u+w "$work/acl"
elif [[ -f $source ]]; then
    source_sha256=$(sha256sum "$source" | cut -d' ' -f1)
    grep -q "$source_sha256" "${pins[@]}" ||
        fail "$source has sha256 $source_sha256, which is not in ${pins[*]}; download it again, or unpack it and pass the directory"
    tar -xf "$source" -C "$work/acl" --strip-components=1
else
    fail "--source '$source' is neither a directory nor a file"
fi
[[ -f $work/acl/SConstruct ]] || fail "--source '$source' holds no SConstruct: it is not ACL's source"

read_version() { sed -n "s/^$1 *= *\"*v*\([0-9.]*\)\"*.*/\1/p" "$work/acl/SConscript" | head -1; }
version=$(read_version VERSION)
soname_major=$(read_version LIBRARY_VERSION_MAJOR)
[[ $version && $soname_major ]] || fail "cannot read VERSION and LIBRARY_VERSION_MAJOR from ACL's SConscript"

# Only ACL's own symbols leave the library, and it uses its own: another libarm_compute in
# the process (PyTorch's wheels carry one) neither changes it nor is changed by it.
# -fno-gnu-unique, since unique symbols are shared between libraries whatever else is done.
cat > "$work/acl/exports.map" <<'MAP'
{
  global:
    _ZN11arm_compute*; _ZNK11arm_compute*; _ZT?N11arm_compute*; _ZT?NK11arm_compute*;
    _ZN8arm_gemm*; _ZNK8arm_gemm*; _ZT?N8arm_gemm*; _ZN8arm_conv*; _ZNK8arm_conv*; _ZT?N8arm_conv*;
    _Zls*N11arm_compute*; _Zrs*N11arm_compute*;
    Acl*;
  local: *;
};
MAP
# ACL's exponentials, logarithms and powers are happy with the oldest versions that glibc has of them.
for function in exp exp2 log log2 pow; do
    printf '__asm__(".symver %s,%s@GLIBC_2.17");\n' $function{,} ${function}f{,}
done > "$work/acl/glibc.h"

# The same for libstdc++: what GCC's headers call of its newest version, by means of an old one (GCC 7's). It is
# compiled apart, so that linking it takes these names in.
cat > "$work/acl/oldest.cpp" <<'CPP'
#include <new>
#ifdef __GLIBCXX__
extern "C" {
void copy_exception(void* copy, const void* from) __asm__("_ZNSt15__exception_ptr13exception_ptrC1ERKS0_");
void drop_exception(void* exception) __asm__("_ZNSt15__exception_ptr13exception_ptrD1Ev");
void old_wait(void* condition, void* lock);
__asm__(".symver old_wait,_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE@GLIBCXX_3.4.11");

void add_reference(const void* exception) __asm__("_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv");
void release(void** exception) __asm__("_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv");
void wait(void* condition, void* lock) __asm__("_ZNSt18condition_variable4waitERSt11unique_lockISt5mutexE");
[[noreturn]] void throw_bad_length() __asm__("_ZSt28__throw_bad_array_new_lengthv");

// A copy that is never dropped is one reference more.
void add_reference(const void* exception)
{
    void* copy;
    copy_exception(&copy, exception);
}

void release(void** exception)
{
    drop_exception(exception);
    *exception = nullptr;
}

void wait(void* condition, void* lock) { old_wait(condition, lock); }
void throw_bad_length() { throw std::bad_array_new_length(); }
}
#endif
CPP

hardening=(-fstack-protector-strong -mbranch-protection=standard)
options=(
    neon=1 opencl=0 os=linux "build=$build" "${variant_options[@]}"
    # A scheduler of the caller's, or ACL's own threads: no OpenMP runtime comes along.
    openmp=0 cppthreads=1 fixed_format_kernels=0
    examples=0 validation_tests=0 benchmark_tests=0 gemm_tuner=0
    Werror=0 set_soname=1 toolchain_prefix= compiler_prefix=
    build_dir=out "build_config=$build_config"
)
# ACL embeds these options into the library. Flags and paths of this machine stay out of it:
# they are in a wrapper around the compiler. -w: a released version's warnings are upstream's.
options+=(
    "extra_cxx_flags=$variant_flags -w -fno-gnu-unique ${hardening[*]} -include glibc.h"
    # With symbols, so that perf and gdb name functions. No build ID: it would be one of this machine's paths, too.
    "extra_link_flags=-Wl,--build-id=none -Wl,-Bsymbolic -Wl,-z,relro,-z,now,-z,noexecstack,-z,text,-z,defs -Wl,--as-needed -Wl,--version-script=exports.map"
)
# The variant's flags come last: from 25.04 on ACL's own -march follows extra_cxx_flags.
write_wrapper() {
    cat > "$work/acl/$1" <<WRAPPER
#!/bin/sh
case " \$* " in
    *" -c "*) exec $(command -v ccache || true) $2 "\$@" $variant_flags ;;
    *) exec $2 "\$@" oldest.o ${LDFLAGS:-} ;;
esac
WRAPPER
    chmod +x "$work/acl/$1"
}
write_wrapper cxx "$CXX ${CXXFLAGS:-}"
# KleidiAI's files, from 25.02 on, are C, and get none of extra_cxx_flags.
write_wrapper cc "$CC ${CFLAGS:-} -w ${hardening[*]}"
if [[ $operators == qlinear ]]; then
    # From 25.02 on ACL's list has them among Gemm's files; what they call is in operators that are left out.
    sed -i '/experimental\/operators\/Cpu\(FullyConnected\|MeanStdDevNormalization\|Pool2d\)\.cpp/d' "$work/acl/filelist.json"
fi
target=build/out/libarm_compute.so
log=$PWD/build_acl-$variant-$operators.log

cd "$work/acl"
# ACL embeds the git hash of whatever repository it is in: of none, wherever this directory is.
# It links in the order of Python's sets, which differs from run to run unless the seed is fixed.
scons=(env CC=./cc CXX=./cxx GIT_DIR=none PYTHONHASHSEED=0 scons "${options[@]}" "$target")
total=$("${scons[@]}" -n | grep -c ' -c .*-o\| -o .* -c ') || true
((total > 0)) || { "${scons[@]}" -n | tail -5 >&2; fail "scons has nothing to compile"; }
./cxx -O2 -fPIC "${hardening[@]}" -c oldest.cpp -o oldest.o
echo "ACL $version, $variant, operators $operators: $total files with $CXX, $jobs at once; log: $log"
started=$SECONDS
show_progress() {
    local done_files=0 shown=0 line
    while IFS= read -r line; do
        printf '%s\n' "$line" >&3
        [[ $line == *' -c '* ]] || continue
        done_files=$((done_files + 1))
        if [[ -t 1 ]]; then
            printf '\r  %d of %d' "$done_files" "$total"
        elif ((done_files * 10 / total > shown)); then
            shown=$((done_files * 10 / total))
            printf '  %d of %d after %d s\n' "$done_files" "$total" $((SECONDS - started))
        fi
    done
    [[ ! -t 1 ]] || echo
}
"${scons[@]}" -j"$jobs" 2>&1 | show_progress 3>"$log" ||
    { tail -20 "$log" >&2; fail "scons failed; the whole log is $log"; }
seconds=$((SECONDS - started))

install=$work/install
mkdir -p "$install"/{lib/pkgconfig,lib/cmake/ArmComputeLibrary,share/arm-compute-library} \
    "$install/include/arm-compute-library/src/cpu/kernels/assembly"
cp -P build/out/libarm_compute.so* "$install/lib"
headers=$install/include/arm-compute-library
cp -R arm_compute support include/half "$headers"
find "$headers" -name BUILD.bazel -delete
# The GEMMs below ACL's functions: they let GEMMs of different sizes share packed weights.
cp src/cpu/kernels/assembly/*.hpp "$headers/src/cpu/kernels/assembly"
cp -R LICENSES "$install/share/arm-compute-library"

cat > "$install/lib/pkgconfig/arm-compute-library.pc" <<PC
prefix=\${pcfiledir}/../..
Name: arm-compute-library
Description: Arm Compute Library ($variant, profile $operators)
Version: $version
Libs: -L\${prefix}/lib -larm_compute
Cflags: -I\${prefix}/include/arm-compute-library -march=$march
PC
cat > "$install/lib/cmake/ArmComputeLibrary/ArmComputeLibraryConfig.cmake" <<CMAKE
# Defines ArmComputeLibrary::arm_compute.
get_filename_component(_acl_prefix "\${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
set(ArmComputeLibrary_VERSION "$version")
set(ArmComputeLibrary_VARIANT "$variant")
# What a part of a program needs to be compiled with to run wherever this library runs.
set(ArmComputeLibrary_TARGET_OPTIONS -march=$march)
if(NOT TARGET ArmComputeLibrary::arm_compute)
  add_library(ArmComputeLibrary::arm_compute SHARED IMPORTED)
  set_target_properties(ArmComputeLibrary::arm_compute PROPERTIES
    IMPORTED_LOCATION "\${_acl_prefix}/lib/libarm_compute.so"
    IMPORTED_SONAME "libarm_compute.so.$soname_major"
    INTERFACE_INCLUDE_DIRECTORIES "\${_acl_prefix}/include/arm-compute-library")
endif()
unset(_acl_prefix)
CMAKE
cat > "$install/lib/cmake/ArmComputeLibrary/ArmComputeLibraryConfigVersion.cmake" <<CMAKE
set(PACKAGE_VERSION "$version")
if(PACKAGE_FIND_VERSION STREQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_EXACT TRUE)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
CMAKE
python3 - "$install/share/arm-compute-library/build.json" "$version" "$variant" "$operators" \
    "$source_sha256" "$("$CXX" --version | head -1)" "$march" "${options[@]}" <<'PY'
import json, sys
path, version, variant, operators, sha256, compiler, march, *options = sys.argv[1:]
with open(path, "w") as out:
    json.dump({"version": version, "variant": variant, "profile": operators,
               "source_sha256": sha256 or None, "compiler": compiler, "march": march,
               "scons_options": options}, out, indent=2)
    out.write("\n")
PY

mkdir -p "$prefix"
cp -R "$install/." "$prefix"
size=$(stat -Lc %s "$prefix/lib/libarm_compute.so")
echo "installed into $prefix after $seconds s: libarm_compute.so.$soname_major, $((size / 1024)) KiB"
