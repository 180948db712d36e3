#!/bin/sh
# Installs what is missing, builds two trees (-Werror; -Werror with ASan and UBSan), and runs the tests:
#
#   sh tests/run.sh [unit|integration|fault|bindings|fuzz|all] [-k EXPRESSION] [--both] [--postgres all|14|15|16|17|18]...
#
#   unit         the C units in both trees, the rules of the source, and the consumer project
#   integration  a real Postgres and, where they are needed, real daemons; in the tree with the sanitizers, but for what has
#                the mark `once`: what it tries is not the tree's, or cannot be with sanitizers. That runs in the -Werror tree
#   fault        the same with crashes of everything; in the -Werror tree
#   bindings     the Python package, on a real Postgres and real daemons; in the -Werror tree
#   fuzz         each fuzz target for about half a minute, with inputs of the commit's own, two at a time (not with -k); in
#                a tree of clang's, the only one built
#   -k           only the tests that match, as pytest's -k (for ctest: as a regular expression)
#   --both       what runs in the tree with the sanitizers runs in the -Werror tree as well: by hand, before a release
#   --postgres   instead of all that, what uses a database (units, integration, fault, bindings) in the -Werror tree on this version
#                of PostgreSQL; may be given more than once. Where Debian has another one, npm's server binaries are taken.
#
# JOBQ_TEST_JOBS: how many tests at a time (default: one more than there are processors). Those that measure, or that
# a busy machine would spoil, have the mark `alone` and run one by one after the others.
#
# The last line is `N passed, M failed`; the exit code is not 0 when M is not 0 or anything did not run. Runs as
# root; as another user it leaves out what needs root (the mark `root`: tests that take on a user or look into jobqd).
# Everything is on unix sockets and in temporary directories.
set -u

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
python=/usr/bin/python3

part=all
match=
both=
versions=
while [ $# -gt 0 ]; do
    case $1 in
    unit | integration | fault | bindings | fuzz | all) part=$1 ;;
    -k)
        [ $# -ge 2 ] || { echo "run.sh: -k needs an expression" >&2; exit 64; }
        match=$2
        shift
        ;;
    --both) both=yes ;;
    --postgres)
        case ${2:-} in
        all) versions='14 15 16 17 18' ;;
        14 | 15 | 16 | 17 | 18) versions="$versions $2" ;;
        *) echo "run.sh: --postgres needs one of all, 14, 15, 16, 17 and 18" >&2; exit 64 ;;
        esac
        shift
        ;;
    -h | --help)
        sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
        exit 0
        ;;
    *)
        echo "run.sh: unknown argument '$1'; allowed are unit, integration, fault, bindings, fuzz, all, -k EXPRESSION," \
            "--both and --postgres VERSION" >&2
        exit 64
        ;;
    esac
    shift
done

[ -z "$versions" ] || [ "$part" != fuzz ] || { echo "run.sh: --postgres does not go with fuzz" >&2; exit 64; }

jobs=${JOBQ_TEST_JOBS:-$(($(nproc) + 1))}
case $jobs in
'' | *[!0-9]* | 0) echo "run.sh: JOBQ_TEST_JOBS is '$jobs'; allowed is a whole number from 1" >&2; exit 64 ;;
esac

work=$(mktemp -d /tmp/jobq-tests.XXXXXX) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

results=$work # where JUnit files go
reports=    # JUnit files, in the order of the run
not_run=    # one line for each step that could not even run
step() { printf '\n== %s\n' "$1"; }
failed() { not_run="$not_run$1
"; }

finish() {
    set -- $reports
    while IFS= read -r line; do
        [ -n "$line" ] && set -- "$@" --failed "$line"
    done <<END
$not_run
END
    echo
    if [ ! -x "$python" ]; then # the packages could not be installed
        printf '%s' "$not_run" | sed 's/^/failed: /'
        echo "0 passed, $(printf '%s' "$not_run" | wc -l) failed"
        exit 1
    fi
    [ "$(id -u)" -eq 0 ] || echo "left out: the tests that only root can run"
    "$python" "$here/harness/tally.py" "$@"
    exit $?
}

install_missing() {
    missing=
    for package in $(grep -v '^#' "$here/packages.txt"); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing="$missing $package"
    done
    # Not in packages.txt: who has it from elsewhere has another package. For croner, and other versions of PostgreSQL.
    command -v npm >/dev/null || missing="$missing npm"
    [ -z "$missing" ] && return 0
    step "installing$missing"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null ||
            { echo "run.sh: only root can install packages, and there is no sudo: apt-get install$missing" >&2; return 1; }
    fi
    $sudo apt-get update -q &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}

# build TREE TARGET OPTION...
build() {
    tree=$1 target=$2
    shift 2
    step "building $tree"
    cmake -S "$root" -B "$root/$tree" -G Ninja -DJOBQ_WERROR=ON -DJOBQ_TEST_SEAMS=ON -DCMAKE_C_COMPILER_LAUNCHER=ccache \
        "$@" \
        >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; return 1; }
    cmake --build "$root/$tree" --target "$target"
}

# unit_tests TREE OPTION...
unit_tests() {
    of_tree=$1
    shift
    if [ -n "$match" ] && ctest --test-dir "$root/$of_tree" -N -R "$match" "$@" | grep -q '^Total Tests: 0$'; then
        return 0
    fi
    step "unit tests in $of_tree"
    JOBQ_BUILD_DIR="$root/$of_tree" timeout 1800 "$python" "$here/harness/with_database.py" -- ctest \
        --test-dir "$root/$of_tree" -j "$jobs" --timeout 300 --output-on-failure --output-junit "$results/unit-$of_tree.xml" \
        --test-output-size-passed 1000000 --test-output-size-failed 1000000 ${match:+-R "$match"} "$@"
    reports="$reports $results/unit-$of_tree.xml"
}

# one_pytest TREE FOLDER NAME MARKS OPTION...: the tests of the folder that have those marks
one_pytest() {
    tree=$1 folder=$2 name=$3 marks=$4
    shift 4
    (cd "$here" && PYTHONDONTWRITEBYTECODE=1 JOBQ_BUILD_DIR="$root/$tree" timeout 7200 "$python" -m pytest \
        "$folder" --junitxml "$results/$name.xml" -m "$marks" --durations 10 --durations-min 5 "$@" \
        ${match:+-k "$match"})
    code=$?
    # Nothing to run is not a failure where a folder has no such test or -k leaves them all out.
    if [ "$code" -eq 5 ]; then
        [ -n "$match" ] || [ "$name" = "$folder-$tree-alone" ] && return 0
    fi
    reports="$reports $results/$name.xml"
}

# python_tests TREE FOLDER [MARKS]: the tests of the folder, or those that have the marks
python_tests() {
    of_tree=$1 part_of=$2
    which=${3:+$3 and }
    step "$part_of tests${3:+ ($3)} on $of_tree, $jobs at a time"
    one_pytest "$of_tree" "$part_of" "$part_of-$of_tree" "${which}not alone" -n "$jobs" --dist loadgroup
    grep -lq 'mark\.alone' "$here/$part_of"/test_*.py || return 0
    step "$part_of tests${3:+ ($3)} on $of_tree, one by one"
    one_pytest "$of_tree" "$part_of" "$part_of-$of_tree-alone" "${which}alone"
}

consumer() {
    [ -f "$here/consumer/run.sh" ] || return 0
    step "the consumer project"
    if JOBQ_BUILD_DIR="$root/build-test" timeout 1800 sh "$here/consumer/run.sh"; then
        cat >"$work/consumer.xml" <<'END'
<testsuite name="consumer"><testcase name="consumer/run.sh"/></testsuite>
END
        reports="$reports $work/consumer.xml"
    else
        failed "the consumer project (tests/consumer/run.sh)"
    fi
}

fuzz() {
    build build-test-fuzz fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DJOBQ_FUZZ=ON ||
        { failed "building build-test-fuzz"; return; }
    step "fuzzing"
    timeout 900 "$python" "$here/fuzz/run.py" "$root/build-test-fuzz" --junit "$work/fuzz.xml"
    reports="$reports $work/fuzz.xml"
}

# on_postgres MAJOR: the parts that use a database, with that server; and what came of it
on_postgres() {
    step "PostgreSQL $1"
    JOBQ_PG_BINDIR=$(sh "$here/harness/postgres_of.sh" "$1") || { failed "getting PostgreSQL $1"; return; }
    export JOBQ_PG_BINDIR
    before=$reports
    reports=
    results=$work/$1
    mkdir "$results"
    case $part in unit | all) unit_tests build-test -L database ;; esac
    case $part in integration | all) python_tests build-test integration ;; esac
    case $part in fault | all) python_tests build-test fault ;; esac
    case $part in bindings | all) python_tests build-test bindings ;; esac
    step "PostgreSQL $("$JOBQ_PG_BINDIR/postgres" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/'):"
    "$python" "$here/harness/tally.py" $reports
    reports="$before $reports"
    unset JOBQ_PG_BINDIR
}

install_missing || { failed "installing packages"; finish; }
if [ -n "$versions" ]; then
    build build-test all -DCMAKE_BUILD_TYPE=RelWithDebInfo -DJOBQ_SANITIZE=OFF ||
        { failed "building build-test"; finish; }
    for version in $versions; do
        on_postgres "$version"
    done
    finish
fi
if [ "$part" != fuzz ]; then
    build build-test all -DCMAKE_BUILD_TYPE=RelWithDebInfo -DJOBQ_SANITIZE=OFF ||
        { failed "building build-test"; finish; }
    # Debug: so that assert() is there too.
    build build-test-san all -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS=-O1 -DJOBQ_SANITIZE=ON ||
        { failed "building build-test-san"; finish; }
fi

case $part in unit | all)
    unit_tests build-test
    unit_tests build-test-san
    python_tests build-test static
    [ -n "$match" ] || consumer
    ;;
esac
case $part in integration | all)
    if [ -n "$both" ]; then
        python_tests build-test integration
    else
        python_tests build-test integration once
    fi
    python_tests build-test-san integration 'not once'
    ;;
esac
case $part in fault | all)
    python_tests build-test fault
    ;;
esac
case $part in bindings | all)
    python_tests build-test bindings
    ;;
esac
case $part in fuzz | all)
    [ -n "$match" ] || fuzz
    ;;
esac
finish
