#!/bin/sh
# Runs the commands of the READMEs on new Debian 12 systems. To be started by hand, as root; needs the network.
#
#   sh tests/fresh.sh [--as root|user]... [--mirror URL] [--renew] [--keep] [--show] [--tests ARGUMENTS] [PART[+PART]...]
#
#   quickstart   the first command of the README
#   tests        its second command: the whole test suite
#   install      its "Build and install"
#   tutorial     "Two minutes" of bindings/python/README.md; install runs before it
#
# PART+PART run one after the other on the same system. The default is quickstart+tutorial tutorial tests, each as root and
# as an ordinary user who has sudo.
#
# A system is a minimal Debian 12 made by debootstrap, with a clone of HEAD in the home of the user who runs the part. It has
# its own file system, process table, /tmp and IPC, and shares the kernel and the network with this machine. From this machine's
# configuration it gets the name servers, the apt sources of Debian 12, proxies, locally added certificates, and npm's registry
# if that is not the default one. At the end its processes are killed and its files deleted.
#
#   --as         run the parts only as root, or only as a user
#   --mirror     the source of Debian 12, if this machine's apt has none
#   --renew      run debootstrap again; its result is kept as an archive in JOBQ_TEST_CACHE, or /var/cache/jobq-tests
#   --keep       keep the file systems and the logs
#   --show       print the commands and run nothing
#   --tests      arguments for the test command, such as 'bindings -k mypy'
#
# Prints a table: part, user, seconds, result. The exit code is 0 if every part passed.
set -u
umask 022

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
suite=bookworm
user=dev     # the ordinary user's name
limit_s=7200 # for a part
cache=${JOBQ_TEST_CACHE:-/var/cache/jobq-tests}

whom=
groups=
mirror=
renew=no
keep=no
show=no
test_arguments=

refuse() {
    echo "fresh.sh: $1" >&2
    exit 64
}

while [ $# -gt 0 ]; do
    case $1 in
    --as)
        case ${2:-} in root | user) whom="$whom $2" ;; *) refuse "--as needs root or user" ;; esac
        shift
        ;;
    --mirror | --tests)
        [ $# -ge 2 ] || refuse "$1 needs a value"
        case $1 in --mirror) mirror=$2 ;; *) test_arguments=$2 ;; esac
        shift
        ;;
    --renew) renew=yes ;;
    --keep) keep=yes ;;
    --show) show=yes ;;
    -h | --help)
        sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
        exit 0
        ;;
    *)
        for part in $(echo "$1" | tr + ' '); do
            case $part in
            quickstart | tests | install | tutorial) ;;
            *) refuse "unknown argument '$part'; allowed are quickstart, tests, install, tutorial, and the options of --help" ;;
            esac
        done
        groups="$groups $1"
        ;;
    esac
    shift
done
: "${whom:=root user}" "${groups:=quickstart+tutorial tutorial tests}"

# --- what a part is ---

# The parts of PART+PART, in their order. install comes before tutorial if it is not there yet.
parts_of() {
    done=' '
    for part in $(echo "$1" | tr + ' '); do
        case $part$done in tutorial*' install '*) ;; tutorial*) printf 'install ' ;; esac
        case $part in tutorial) done="$done install " ;; esac
        printf '%s ' "$part"
        done="$done$part "
    done
}

# commands PART WHO: a script for bash, from the READMEs
commands() {
    case $2 in root) set -- "$1" ;; user) set -- "$1" --sudo ;; esac
    python3 "$here/harness/readme.py" "$@" | case $1 in tests) sed "s|\$| $test_arguments|" ;; *) cat ;; esac
}

if [ $show = yes ]; then
    for who in $whom; do
        for group in $groups; do
            for part in $(parts_of "$group"); do
                printf '\n== %s as %s (%s)\n' "$part" "$who" "$group"
                commands "$part" "$who"
            done
        done
    done
    exit 0
fi

[ "$(id -u)" -eq 0 ] || refuse "only root can make such machines"
for program in debootstrap git python3 unshare pivot_root setsid; do
    command -v $program >/dev/null ||
        { echo "fresh.sh: $program is missing: apt-get install debootstrap git python3 util-linux" >&2; exit 69; }
done

# --- nothing is left behind ---

work=$(mktemp -d "${TMPDIR:-/var/tmp}/jobq-fresh.XXXXXX") || exit 1
machine= # the pid of the unshare whose child is a machine's first process
table=$work/table
: >"$table"

# When the first process of a PID namespace dies, the kernel kills the others before it reports that death. The mounts
# vanish with the last process.
halt() {
    [ -n "$machine" ] || return 0
    # shellcheck disable=SC2046 # one process id
    kill -KILL $(cat "/proc/$machine/task/$machine/children") 2>/dev/null
    wait "$machine" 2>/dev/null
    machine=
}
clean_up() {
    trap - EXIT
    trap '' INT TERM HUP
    halt
    case $keep in yes) echo "kept: $work" ;; *) rm -rf --one-file-system "$work" ;; esac
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# --- machines ---

# The first process of a machine: TREE WHO LIMIT_S. It reaps orphans, and its end kills whatever is left. It mounts in its own
# namespace. pivot_root instead of chroot, so that no process in there can reach the files of this machine.
# shellcheck disable=SC2016
first_process='
set -eu
tree=$1 who=$2 limit_s=$3
hostname fresh
mount --bind "$tree" "$tree"
cd "$tree"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mkdir .before
pivot_root . .before
umount -l /.before
rmdir /.before
code=0
timeout -k 30 "$limit_s" su -l "$who" -c "exec bash /part" || code=$?
[ "$code" -ne 124 ] || echo "fresh.sh: ended after $limit_s s"
[ "$code" -eq 0 ] || exit "$code"
tries=0
while cat /proc/[0-9]*/comm 2>/dev/null | grep -q "^jobqd"; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { echo "fresh.sh: jobqd was left running"; exit 1; }
    sleep 0.1
done'

# run_in TREE WHO LIMIT_S: runs the script TREE/part in the login shell of WHO. In the background, because a trap waits for a
# command in the foreground. Not for use in a pipeline: $machine would be set in a subshell.
run_in() {
    setsid unshare --mount --propagation private --pid --fork --kill-child --ipc --uts \
        sh -c "$first_process" first "$@" </dev/null &
    machine=$!
    wait "$machine"
    ended=$?
    machine=
    rm -f "$1/part"
    return $ended
}

# Lines of sources.list for Debian 12.
sources() {
    if [ -n "$mirror" ]; then
        echo "deb $mirror $suite main"
        return
    fi
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(CODENAME) $(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk -v suite="^$suite(-updates|-security)?\$" '$1 ~ suite && $4 == "main" && $5 == "Debian" { print "deb", $2, $3, $4 }' |
        sort -u
}

# The network as it is configured here.
configure() {
    cp -L /etc/resolv.conf "$1/etc/resolv.conf"
    echo "127.0.0.1 localhost fresh" >"$1/etc/hosts"
    echo fresh >"$1/etc/hostname"
    sources >"$1/etc/apt/sources.list"
    apt-config dump | grep -E '^Acquire::(http|https)::([^ ]*::)?Proxy' >"$1/etc/apt/apt.conf.d/90proxy"
    # The package ca-certificates takes these up when it is installed.
    mkdir -p "$1/usr/local/share/ca-certificates"
    for certificate in /usr/local/share/ca-certificates/*.crt; do
        [ ! -e "$certificate" ] || cp "$certificate" "$1/usr/local/share/ca-certificates/"
    done
    {
        env | grep -E '^(http_proxy|https_proxy|no_proxy|HTTP_PROXY|HTTPS_PROXY|NO_PROXY)='
        # npm lists only the settings that differ from its defaults.
        ! command -v npm >/dev/null || npm config list | sed -n 's/^registry = "\(.*\)"$/npm_config_registry=\1/p'
    } >"$1/etc/environment"
}

# bare root|user: makes the archive of the system that such a machine begins with. It has no lists of packages, like the
# container images of Debian 12.
bare() {
    archive=$cache/fresh-$suite-$1.tar
    [ "$renew" = yes ] || [ ! -e "$archive" ] || return 0
    printf '== making the bare system (%s)\n' "$1"
    tree=$work/bare
    case $1 in
    root)
        from=$(sources | awk -v suite=$suite '$3 == suite { print $2; exit }')
        [ -n "$from" ] || { echo "fresh.sh: apt knows no Debian 12: apt-get update, or --mirror URL" >&2; return 1; }
        eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
        (${http_proxy:+export http_proxy} && debootstrap --variant=minbase $suite "$tree" "$from") >"$work/bare.log" 2>&1
        ;;
    user)
        mkdir "$tree" && tar -C "$tree" -xpf "$cache/fresh-$suite-root.tar" && configure "$tree" &&
            printf '%s\n' "set -e" "apt-get update -q" "apt-get install -y -q --no-install-recommends sudo" \
                "useradd -m -s /bin/bash $user" "echo '$user ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/$user" >"$tree/part" &&
            run_in "$tree" root 600 >"$work/bare.log" 2>&1
        ;;
    esac || { tail -n 20 "$work/bare.log" >&2; return 1; }
    rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/apt/*.bin "$tree"/var/cache/apt/archives/*.deb
    mkdir -p "$cache" && tar -C "$tree" --numeric-owner -cpf "$archive.half" . && mv "$archive.half" "$archive" &&
        rm -rf --one-file-system "$tree"
}

# new_machine WHO: $tree, with a clone of HEAD in WHO's home
new_machine() {
    tree=$work/machine
    mkdir "$tree" && tar -C "$tree" -xpf "$cache/fresh-$suite-$1.tar" && configure "$tree" || return 1
    case $1 in root) login=root home=/root ;; user) login=$user home=/home/$user ;; esac
    # The checkout may belong to another user, and git reads what allows that from a file only.
    printf '[safe]\n\tdirectory = *\n' >"$work/.gitconfig"
    HOME=$work git clone -q --no-hardlinks "$root" "$tree$home/jobq" &&
        HOME=$work git -C "$tree$home/jobq" remote remove origin &&
        chown -R "$(stat -c %u:%g "$tree$home")" "$tree$home/jobq"
}

# --- parts ---

# What the READMEs promise beyond the exit code. Prints what is wrong.
verify() { # PART LOG
    python3 "$here/harness/readme.py" "$1" --prints | while IFS= read -r line; do
        [ -z "$line" ] || grep -qxF "$line" "$2" || echo "the README says that it prints: $line"
    done
    HOME=$work git -C "$tree$home/jobq" status --porcelain --ignored bindings include jobqd libjobq migrations |
        sed 's/^/left in the checkout: /'
}

# one_part PART WHO GROUP: a row of the table
one_part() {
    log=$work/$(echo "$3" | tr + -)-$1-$2.log
    printf '== %s as %s (%s)\n' "$1" "$2" "$3"
    began=$(date +%s)
    result=ok
    # Job control, for the tutorial's %1.
    { printf 'set -emx\ncd ~/jobq\n' && commands "$1" "$2"; } >"$tree/part"
    run_in "$tree" "$login" "$limit_s" >"$log" 2>&1 || result="FAILED ($ended)"
    wrong=$(verify "$1" "$log")
    [ -z "$wrong" ] || { [ "$result" != ok ] || result=FAILED; printf '%s\n' "$wrong" >>"$log"; }
    seconds=$(($(date +%s) - began))
    last=$(python3 "$here/harness/readme.py" "$1" --prints)
    [ -n "$last" ] && [ "$result" = ok ] || last=$(grep -v '^+' "$log" | tail -n 1)
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$seconds" "$result" "$(echo "$last" | cut -c 1-60)" >>"$table"
    [ "$result" = ok ] || { printf '%s; its last lines:\n' "$result"; tail -n 40 "$log" | sed 's/^/    /'; }
    [ "$result" = ok ]
}

[ -z "$(git -c safe.directory="$root" -C "$root" status --porcelain 2>/dev/null)" ] ||
    echo "fresh.sh: the checkout has changes that are not committed; they are not tried" >&2
bare root || exit 1
case $whom in *user*) bare user || exit 1 ;; esac
for who in $whom; do
    for group in $groups; do
        new_machine "$who" || exit 1
        for part in $(parts_of "$group"); do
            one_part "$part" "$who" "$group" || break
        done
        if [ $keep = yes ]; then
            mv "$tree" "$work/$(echo "$group" | tr + -)-$who"
        else
            rm -rf --one-file-system "$tree"
        fi
    done
done

printf '\n%-11s %-5s %8s  %-12s %s\n' part as seconds result 'what it said'
awk -F '\t' '{ printf "%-11s %-5s %8d  %-12s %s\n", $1, $2, $3, $4, $5 }' "$table"
! grep -q 'FAILED' "$table"
