#!/bin/sh
# Makes sure that programs the tests need are on this machine: scripts/system.sh postgresql prometheus ...
# Installs the Debian package when a program is missing and it may (root, apt-get); otherwise says what to install. CI must
# have them all; elsewhere the tests that need a missing one are skipped, with the reason.
set -eu

present() {
    case $1 in
        postgresql)
            # The wheel that the tests bring along runs for whoever is not root.
            [ "$(id -u)" = 0 ] || [ -n "${CI:-}" ] || return 0
            command -v postgres >/dev/null 2>&1 && return 0
            for server in /usr/lib/postgresql/*/bin/postgres; do [ -x "$server" ] && return 0; done
            return 1
            ;;
        chromium) command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

lacking() {
    if [ -n "${CI:-}" ]; then
        echo "error: $1" >&2
        exit 1
    fi
    echo "warning: $1; tests that need it are skipped" >&2
    exit 0
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
    lacking "not on this machine:$missing (Debian and Ubuntu: sudo apt-get install$missing)"
fi

mkdir -p .cache
log=.cache/system.log
echo "installing system packages:$missing" >&2
# shellcheck disable=SC2086  # a list of words on purpose
if ! install $missing && ! { apt-get update -qq >"$log" 2>&1 && install $missing; }; then
    tail -n 20 "$log" >&2
    lacking "apt-get could not install$missing"
fi
for name in $missing; do
    present "$name" || lacking "$name is still missing after its package was installed"
done
