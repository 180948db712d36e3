#!/bin/sh
# Installs jobq to a temporary place, moves it, and uses it there as a project of somebody else's would: by
# CMake and by pkg-config, shared and static, from C and C++. Looks at what the libraries export.
#
#   JOBQ_BUILD_DIR=build sh tests/consumer/run.sh
#
# JOBQ_TEST_DATABASE: a migrated database; without it a private server is started. The tree must be one without
# the sanitizers.
set -eu
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(cd "${1:-${JOBQ_BUILD_DIR:-$root/build}}" && pwd)

if [ -z "${JOBQ_TEST_DATABASE:-}" ]; then
    JOBQ_BUILD_DIR=$build exec /usr/bin/python3 "$root/tests/harness/with_database.py" -- sh "$0" "$build"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/jobq-consumer.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

ok() { echo "ok: $1"; }
die() { echo "consumer: $1" >&2; exit 1; }
# same WHAT FOUND EXPECTED
same() { [ "$2" = "$3" ] || die "$1: found
$2
expected
$3"; }
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2; die "failed: $*"; }; }

# ---- installed, staged, moved ----

quietly cmake --install "$build" --prefix "$work/first"
mv "$work/first" "$work/prefix"
prefix=$work/prefix
lib=$(dirname "$(find "$prefix" -name jobq.pc)")/..
lib=$(cd "$lib" && pwd)
for file in include/jobq/jobq.h bin/jobqd; do
    [ -f "$prefix/$file" ] || die "$file is not installed"
done
! grep -rqF "$work/first" "$lib/pkgconfig" "$lib/cmake" || die "the first prefix is written into the package"
! grep -rqF "$root" "$lib/pkgconfig" "$lib/cmake" || die "the source's path is written into the package"
ok "installs to a prefix, and what is installed may be moved"

quietly env DESTDIR="$work/stage" cmake --install "$build" --prefix /opt/jobq
same "files below DESTDIR" "$(cd "$work/stage/opt/jobq" && find . | sort)" "$(cd "$prefix" && find . | sort)"
ok "installs below DESTDIR"

# ---- what the libraries are ----

same "soname" "$(readelf -d "$lib/libjobq.so" | sed -n 's/.*soname: \[\(.*\)\]/\1/p')" libjobq.so.0
public=$(cat "$prefix"/include/jobq/*.h | tr '\n' ' ' | grep -o 'JOBQ_API [^;(]*(' | grep -o 'jobq_[a-z_]*($' |
    tr -d '(' | sort)
[ "$(echo "$public" | wc -l)" -ge 30 ] || die "the headers declare too little: $public"
same "exported symbols" "$(nm -D --defined-only "$lib/libjobq.so" | sed -n 's/.* T \(.*\)@@JOBQ_0$/\1/p' | sort)" "$public"
same "exported in all" "$(nm -D --defined-only "$lib/libjobq.so" | grep -vc ' A JOBQ_0$')" "$(echo "$public" | wc -l)"
ok "libjobq.so.0 exports the functions of the headers, and nothing else"

nm -g --defined-only "$lib/libjobq.a" | awk 'NF == 3 {print $3}' | sort >"$work/static"
same "names in libjobq.a without the prefix" "$(grep -v '^jobq_' "$work/static" || true)" ""
same "public names in libjobq.a" "$(grep '^jobq_[^_]' "$work/static")" "$public"
ok "libjobq.a takes no name that does not begin with jobq_"

# ---- the headers ----

for header in "$prefix"/include/jobq/*.h; do
    name=jobq/$(basename "$header")
    for compiler in "cc -std=c99 -x c" "c++ -std=c++11 -x c++"; do
        printf '#include <%s>\nextern int not_empty;\n' "$name" |
            $compiler -pedantic -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" - ||
            die "<$name> does not compile alone with $compiler"
    done
done
ok "each header compiles alone, as C99 and as C++"

# ---- used ----

# uses PROGRAM shared|static
uses() {
    if readelf -d "$1" | grep -q 'NEEDED.*libjobq\.so\.0'; then way=shared; else way=static; fi
    same "how $(basename "$1") is linked" "$way" "$2"
    LD_LIBRARY_PATH=$lib "$1" || die "$(basename "$1") failed"
}

quietly cmake -S "$here" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix"
quietly cmake --build "$work/cmake"
uses "$work/cmake/consumer_shared" shared
uses "$work/cmake/consumer_static" static
ok "CMake: find_package(jobq), shared and static"

sed 's/find_package(jobq 0\.1 /find_package(jobq 0.2 /' "$here/CMakeLists.txt" >"$work/newer.txt"
mkdir "$work/newer" && mv "$work/newer.txt" "$work/newer/CMakeLists.txt" && touch "$work/newer/main.c" "$work/newer/plus.cpp"
! cmake -S "$work/newer" -B "$work/newer/build" -DCMAKE_PREFIX_PATH="$prefix" >"$work/log" 2>&1 ||
    die "find_package(jobq 0.2) took version 0.1"
grep -q 'requested version "0.2"' "$work/log" || { cat "$work/log" >&2; die "another error was expected"; }
ok "CMake: another minor version is refused"

export PKG_CONFIG_PATH="$lib/pkgconfig"
flags="-std=c99 -Wall -Wextra -pedantic -Werror -DPACKAGE_VERSION=\"$(pkg-config --modversion jobq)\""
# shellcheck disable=SC2046 # words are what pkg-config prints
{
    quietly c++ -std=c++11 -Wall -Wextra -pedantic -Werror $(pkg-config --cflags jobq) -c "$here/plus.cpp" -o "$work/plus.o"
    quietly cc $flags $(pkg-config --cflags jobq libpq) -c "$here/main.c" -o "$work/main.o"
    quietly cc "$work/main.o" "$work/plus.o" $(pkg-config --libs jobq libpq) -o "$work/by_pkg_config"
    quietly cc "$work/main.o" "$work/plus.o" "$lib/libjobq.a" $(pkg-config --libs libpq) -o "$work/by_hand"
}
uses "$work/by_pkg_config" shared
uses "$work/by_hand" static
ok "pkg-config with plain cc, shared and static"
