#!/bin/sh
# Cross-compiles for arm64 with -Werror, by hand, on Debian:
#
#   sh tests/arm64.sh [--sysroot]
#
# 1. build-arm64-sysroot: what jobq needs of Debian's arm64 packages, unpacked there. apt works on a state of its own, so that
#    this machine's packages stay as they are, and no root is needed. It is made once; delete the folder to renew it.
# 2. The preset `arm64`, in a new build-arm64.
# 3. jobqd, jobq-bench and libjobq.so must be hardened, with branch protection.
# 4. The unit tests that need no database, in qemu-aarch64.
#
#   --sysroot    only the first
#
# Needs gcc-aarch64-linux-gnu, and for the unit tests qemu-user.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
sysroot=$root/build-arm64-sysroot
build=$root/build-arm64
packages='libc6-dev libcjson-dev libcmocka-dev libinih-dev libpq-dev libuv1-dev'

step() { printf '\n== %s\n' "$1"; }
fail() { echo "arm64.sh: $1" >&2; exit 1; }

make_sysroot() {
    step "$sysroot"
    new=$sysroot.new
    apt=$new/apt
    rm -rf "$new"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    set -- -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false \
        -o APT::Sandbox::User= -o Dir::State="$apt" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
    apt-get "$@" update
    # shellcheck disable=SC2086 # a list of packages
    apt-get "$@" install --download-only --yes $packages
    for package in "$apt"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$new"
    done
    # An absolute link would lead to this machine's libraries.
    find "$new" -type l -lname '/*' | while IFS= read -r link; do
        ln -sfnr "$new$(readlink "$link")" "$link"
    done
    rm -rf "$apt"
    mv "$new" "$sysroot"
}

# has TOOL-AND-OPTIONS PATTERN WHAT
has() {
    # shellcheck disable=SC2086 # the tool's options are words of their own
    aarch64-linux-gnu-$1 "$file" | grep -Eq -- "$2" || fail "$file: no $3"
}

# hardened FILE
hardened() {
    file=$1
    has 'readelf -Wh' 'DYN .*' 'position independent code'
    has 'readelf -Wl' 'GNU_RELRO' 'RELRO'
    has 'readelf -Wl' 'GNU_STACK .* RW +0x' 'stack without code'
    has 'readelf -Wd' 'BIND_NOW' 'BIND_NOW'
    has 'readelf -W --dyn-syms' '__stack_chk_fail' 'stack protector'
    has 'readelf -W --dyn-syms' '__memcpy_chk' '_FORTIFY_SOURCE'
    # The linker leaves the note `AArch64 feature: BTI, PAC` out of the whole file where Debian's own start files have none:
    # so count the instructions, and look for the note in the objects.
    protected=$(aarch64-linux-gnu-objdump -d "$file" | grep -Ec '[[:space:]](paciasp|bti)' || :)
    [ "$protected" -gt 100 ] || fail "$file: only $protected instructions of branch protection"
    echo "$file: hardened, $protected instructions of branch protection"
}

case ${1-} in
'' | --sysroot) ;;
-h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
*) echo "arm64.sh: unknown argument '$1'; allowed is --sysroot" >&2; exit 64 ;;
esac

[ -d "$sysroot" ] || make_sysroot
[ "${1-}" != --sysroot ] || exit 0
command -v aarch64-linux-gnu-gcc >/dev/null || fail 'needs the package gcc-aarch64-linux-gnu'
cd "$root"

step "$build"
rm -rf "$build"
cmake --preset arm64
cmake --build "$build"

step 'hardening'
for file in jobqd/jobqd jobqd/bench/jobq-bench libjobq/libjobq.so; do
    hardened "build-arm64/$file"
done
bare=$(find build-arm64/libjobq build-arm64/jobqd -name '*.c.o' -exec sh -c '
    for object; do
        aarch64-linux-gnu-readelf -n "$object" | grep -q "AArch64 feature: BTI, PAC" || echo "$object"
    done' - {} +)
[ -z "$bare" ] || fail "without the note 'BTI, PAC': $bare"
echo "each object of libjobq and jobqd has the note 'AArch64 feature: BTI, PAC'"

step 'unit tests'
command -v qemu-aarch64 >/dev/null || { echo 'left out: they need the package qemu-user'; exit 0; }
# Left out is what qemu-user cannot show: it has no PR_SET_CHILD_SUBREAPER (forkserver, pool, spawn), no seccomp
# (descriptors), makes up /proc/self/stat (guard), has memory of its own (usage), and this machine's programs are not arm64's
# (limits, program).
ctest --test-dir "$build" --output-on-failure --timeout 300 -j "$(nproc)" -LE database \
    -E '^test_(descriptors|forkserver|guard|limits|pool|program|spawn|usage)$'
