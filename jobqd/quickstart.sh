#!/bin/sh
# jobq on real input: photographs and documents of this machine, run as jobs. See quickstart/README.md.
#
#   sh jobqd/quickstart.sh [--no-install]
#
# Installs what is missing (apt, with sudo where not root), builds into build/quickstart, starts jobqd with a private
# database, enqueues a few hundred jobs, shows their progress and how they ended, and stops everything.
# --no-install: install no packages.
set -eu

here=$(cd "$(dirname "$0")/quickstart" && pwd)
root=$(cd "$here/../.." && pwd)
work=$root/build/quickstart # what is built, and the results
tree=$work/tree
prefix=$work/prefix
results=$work/results
photo_package=lomiri-wallpapers-16.04
widths="96 160 240 320 480 640"
limit_s=120 # for the jobs
began=$(date +%s)

install=yes
case ${1-} in
'') ;;
--no-install) install=no ;;
-h | --help)
    sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
    exit 0
    ;;
*)
    echo "quickstart.sh: unknown argument '$1'; --no-install is the only one" >&2
    exit 64
    ;;
esac

daemon=   # jobqd's pid
database= # the folder of its database
step() { printf '\n== %s\n' "$*"; }
give_up() {
    echo "quickstart.sh: $*" >&2
    exit 1
}

# Whatever happens, only the results and the builds stay behind.
clean_up() {
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$daemon" ]; then
        kill -TERM "$daemon" 2>/dev/null || :
        waited=0
        while kill -0 "$daemon" 2>/dev/null && [ $waited -lt 100 ]; do
            sleep 0.1
            waited=$((waited + 1))
        done
        # Its workers and its database go with it.
        kill -KILL "$daemon" 2>/dev/null || :
        wait "$daemon" 2>/dev/null || :
        daemon=
    fi
    [ -z "$database" ] || rm -rf "$database"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- packages and programs ---

# The packages of the named sections, from the only list.
packages() {
    awk -v wanted=" $* " '/^#:/ { on = index(wanted, " " $2 " ") } /^[^#]/ && on { print $1 }' \
        "$root/tests/packages.txt"
}

install_missing() {
    missing=
    for package in $(packages build quickstart); do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    step "installing$missing"
    sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo=sudo
        command -v sudo >/dev/null || give_up "only root can install packages, and there is no sudo: apt-get install$missing"
    fi
    # Debian's postgresql package creates a cluster and starts it. We need only the programs, so if the package is
    # new, this tells it not to, just once.
    asked=/etc/postgresql-common/createcluster.d/jobq-quickstart.conf
    new=no
    [ -e /etc/postgresql-common ] || new=yes
    if [ $new = yes ]; then
        $sudo mkdir -p /etc/postgresql-common/createcluster.d
        echo 'create_main_cluster = false' | $sudo tee $asked >/dev/null
    fi
    installed=yes
    { $sudo apt-get update -qq &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing \
            >"$work/apt.log" 2>&1; } || installed=no
    [ $new = no ] || $sudo rm -f $asked
    if [ $installed = no ]; then
        tail -n 20 "$work/apt.log" >&2
        give_up "could not install$missing; the whole log is $work/apt.log"
    fi
}

# quietly NAME COMMAND…: shows the command's output only if it fails.
quietly() {
    log=$work/$1.log
    shift
    "$@" >"$log" 2>&1 || {
        cat "$log" >&2
        give_up "$1 failed; the log is $log"
    }
}

# Builds jobqd and libjobq, then the worker and the client with the installed libjobq, as any other program would.
build() {
    step "building jobqd, libjobq and the quickstart's programs in $work"
    quietly cmake cmake -S "$root" -B "$tree" -G Ninja -DJOBQ_BUILD_TESTS=OFF \
        "-DCMAKE_INSTALL_PREFIX=$prefix" -DCMAKE_INSTALL_LIBDIR=lib
    quietly build cmake --build "$tree"
    quietly install cmake --install "$tree"
    PKG_CONFIG_PATH=$prefix/lib/pkgconfig
    export PKG_CONFIG_PATH
    # shellcheck disable=SC2046 # the flags are words
    quietly darkroom cc -std=c11 -D_GNU_SOURCE -O2 -o "$work/darkroom" "$here/darkroom.c" "$here/picture.c" \
        $(pkg-config --cflags --libs jobq libcjson libjpeg) "-Wl,-rpath,$prefix/lib"
    # shellcheck disable=SC2046
    quietly album cc -std=c11 -D_GNU_SOURCE -O2 -o "$work/album" "$here/album.c" \
        $(pkg-config --cflags --libs jobq libpq libcjson) "-Wl,-rpath,$prefix/lib"
    cp "$here/jobqd.conf" "$here/pack.sh" "$work/"
    jobqd=$prefix/bin/jobqd
}

# --- jobqd ---

start_jobqd() {
    # In /tmp, because the user that postgres runs as must be able to enter the folders above it.
    database=$(mktemp -d /tmp/jobq-quickstart.XXXXXX)
    chmod 755 "$database"
    step "starting jobqd with a private database (log: $work/jobqd.log)"
    : >"$work/jobqd.log" # or the last run's address would be taken for this one's
    "$jobqd" run -c "$work/jobqd.conf" --embedded "$database/db" >"$work/jobqd.log" 2>&1 &
    daemon=$!
    waited=0
    until uri=$(sed -n 's/.* ready database=//p' "$work/jobqd.log") && [ -n "$uri" ]; do
        kill -0 "$daemon" 2>/dev/null && [ $waited -lt 600 ] || {
            cat "$work/jobqd.log" >&2
            give_up "jobqd did not become ready"
        }
        sleep 0.1
        waited=$((waited + 1))
    done
    echo "ready: psql $uri"
}

sql() { psql -X -q -v ON_ERROR_STOP=1 "$uri" "$@"; }
enqueue() { "$jobqd" enqueue --database "$uri" "$@"; }

# --- the jobs ---

enqueue_all() {
    rm -rf "$results"
    mkdir -p "$results/documents"
    for width in $widths; do mkdir -p "$results/thumbnails/$width"; done
    photos=$(dpkg -L "$photo_package" | grep '\.jpg$')
    photo=$(echo "$photos" | head -n 1)

    step "enqueueing"
    printf 'through libjobq, in one transaction:  '
    # shellcheck disable=SC2086 # paths of a Debian package: no blanks
    "$work/album" "$uri" "$results" "$widths" $photos
    printf 'with SQL:                             '
    find -L /usr/share/doc -name copyright -type f | sort | head -n 120 |
        sql -At -v folder="$results/documents" -f "$here/enqueue.sql"
    printf 'with jobqd enqueue -, one job a line: '
    {
        find /usr/share/common-licenses -type f
        find /var/log -type f -name '*.log' -size +0 -size -4096k -readable
    } | jq -cR --arg folder "$results/documents" \
        '{kind: "pack", queue: "documents", args: {file: ., folder: $folder}}' >"$work/jobs.jsonl"
    enqueue - <"$work/jobs.jsonl" >"$work/ids"
    echo "$(wc -l <"$work/ids") jobs: licences and logs to pack"
    echo 'with jobqd enqueue:                   5 jobs that go wrong on purpose'
    enqueue pack "$(jq -nc --arg f "$results/documents" '{file: "/no/such/document", folder: $f}')" \
        --queue documents >/dev/null
    enqueue unsteady "$(jq -nc --arg p "$photo" --arg o "$results/unsteady.jpg" \
        '{photo: $p, width: 800, out: $o}')" --queue photos >/dev/null
    enqueue segfault --queue photos --max-attempts 2 >/dev/null
    enqueue hang --queue photos --max-attempts 1 --timeout 2s >/dev/null
    enqueue no_such_kind --queue photos --max-attempts 1 >/dev/null
}

watch() {
    step "running"
    last=
    waited=0
    until [ "$last" = "0 left" ]; do
        line=$(sql -At -f "$here/progress.sql")
        last=${line##*, }
        if [ -t 1 ]; then
            printf '\r%s\033[K' "$line"
        else
            echo "$line"
        fi
        kill -0 "$daemon" 2>/dev/null || give_up "jobqd ended; its log is $work/jobqd.log"
        [ $waited -lt $((limit_s * 2)) ] || give_up "the jobs are not done after $limit_s s; see the log: $work/jobqd.log"
        waited=$((waited + 1))
        [ "$last" = "0 left" ] || sleep 0.5
    done
    [ ! -t 1 ] || echo
}

report() {
    step "how the jobs of each kind ended"
    sql -P border=2 -P footer=off -f "$here/report.sql"
    step "the results"
    echo "contact sheet   $results/contact-sheet.jpg"
    echo "thumbnails      $results/thumbnails/ ($(find "$results/thumbnails" -name '*.jpg' | wc -l) pictures)"
    echo "documents       $results/documents/ ($(find "$results/documents" -name '*.gz' | wc -l) packed, each with its sha256)"
    [ -s "$results/contact-sheet.jpg" ] || give_up "the contact sheet was not made; see $work/jobqd.log"
}

mkdir -p "$work"
[ $install = no ] || install_missing
build
start_jobqd
enqueue_all
watch
report
clean_up
printf '\nDone in %d s. Nothing is left running.\n' $(($(date +%s) - began))
