#!/bin/sh
# Prints the newest Python that Retrue runs on; nothing when there is none.
for name in python3.13 python3.12 python3.11 python3 python; do
    # A name may be a shim that starts nothing: only an answer counts.
    found=$("$name" -c 'import sys; print(sys.executable if sys.version_info >= (3, 11) else "")' 2>/dev/null) || continue
    if [ -n "$found" ]; then
        echo "$found"
        exit 0
    fi
done
