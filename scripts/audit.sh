#!/bin/sh
# Compares every locked package with the vulnerabilities that PyPI knows of. Needs the network; changes nothing.
# usage: scripts/audit.sh PYTHON
set -eu
python=$1
audit=.cache/audit/bin/pip-audit
if [ ! -x "$audit" ]; then
    "$python" -m venv .cache/audit
    .cache/audit/bin/python -m pip install --quiet 'pip-audit>=2.10,<3'
fi
"$audit" --disable-pip --require-hashes --progress-spinner off --requirement requirements.lock
