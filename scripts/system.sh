#!/bin/sh
# Makes sure that programs the tests need are on this machine: scripts/system.sh postgresql [chromium] [prometheus]
# Installs the Debian package when a program is missing and it may (root, apt-get); otherwise says what to install.
set -eu

present() {
    case $1 in
        postgresql)
            command -v postgres >/dev/null 2>&1 && return 0
            for server in /usr/lib/postgresql/*/bin/postgres; do [ -x "$server" ] && return 0; done
            return 1
            ;;
        chromium) command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

install() {
    # Only the package's files are wanted: no server may start by itself.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends -qq "$@" >"$log" 2>&1
}

missing=
for name in "$@"; do
    present "$name" || missing="$missing $name"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "error: not on this machine:$missing; install it and try again (Debian and Ubuntu: sudo apt-get install$missing)" >&2
    exit 1
fi

mkdir -p .cache
log=.cache/system.log
echo "installing system packages:$missing" >&2
# shellcheck disable=SC2086  # a list of words on purpose
if ! install $missing && ! { apt-get update -qq >"$log" 2>&1 && install $missing; }; then
    tail -n 20 "$log" >&2
    echo "error: apt-get could not install$missing" >&2
    exit 1
fi
for name in $missing; do
    present "$name" || { echo "error: $name is still missing after its package was installed" >&2; exit 1; }
done
