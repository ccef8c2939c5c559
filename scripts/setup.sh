#!/bin/sh
# Makes the virtual environment: exactly the locked packages, then this project, editable.
# usage: scripts/setup.sh PYTHON VENV
set -eu
python=$1
venv=$2

if [ -z "$python" ]; then
    echo "error: no Python 3.11 or newer found (looked for python3.13, python3.12, python3.11, python3); install one, or: make PYTHON=/path/to/python" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "error: Retrue needs Python 3.11 or newer; $python is $("$python" -V 2>&1)" >&2
    exit 1
fi

# One set-up at a time: two would break each other's files.
mkdir -p .cache
if ! mkdir .cache/setup.lock 2>/dev/null; then
    owner=$(cat .cache/setup.lock/pid 2>/dev/null || true)
    if [ -n "$owner" ] && kill -0 "$owner" 2>/dev/null; then
        echo "error: another make is setting up $venv (process $owner); wait for it and try again" >&2
        exit 1
    fi
fi
echo $$ >.cache/setup.lock/pid
trap 'rm -rf .cache/setup.lock' EXIT
trap 'exit 130' INT TERM

echo "setting up $venv with $("$python" -V 2>&1): about a minute" >&2
# A venv of another Python, or of one that is gone or was replaced, cannot be repaired: it is made anew.
origin='import sys; print(sys.version, sys.base_prefix)'
if [ "$("$venv/bin/python" -c "$origin" 2>/dev/null)" != "$("$python" -c "$origin")" ]; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "error: $python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi
# --no-deps: the lock is complete. --no-compile: Python compiles what is imported, when it is imported.
"$venv/bin/python" -m pip install --quiet --no-compile --no-deps --require-hashes --requirement requirements.lock
"$venv/bin/python" -m pip install --quiet --no-compile --no-deps --no-build-isolation --editable .
