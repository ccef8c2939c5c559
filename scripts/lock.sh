#!/bin/sh
# Writes requirements.lock: one set of versions, with hashes, for every Python and platform that Retrue supports.
# usage: scripts/lock.sh PYTHON [--upgrade]
set -eu
python=$1
shift
uv=.cache/uv/bin/uv
if [ ! -x "$uv" ]; then
    "$python" -m venv .cache/uv
    .cache/uv/bin/python -m pip install --quiet 'uv>=0.13,<0.14'
fi
UV_CACHE_DIR=.cache/uv/cache "$uv" pip compile --quiet --no-config --universal --fork-strategy fewest --extra onnx --extra otel --group dev \
    --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
    --output-file requirements.lock "$@" pyproject.toml
