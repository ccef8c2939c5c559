#!/bin/sh
# Makes the keys that the containers begin with, each once, and keeps their texts in a folder that few may read.
# usage: first-keys.sh FOLDER
set -eu
umask 077
folder=$1

make_key() {
    file=$folder/$1
    shift
    [ ! -s "$file" ] || return 0
    name=compose-$(basename "$file")
    # One whose text was lost, because this ended in between, opens nothing any more.
    retrue keys revoke "$name" --reason "its text was never kept" >/dev/null 2>&1 || true
    retrue keys create --name "$name" "$@" --reason "the first start" >"$file.part"
    mv "$file.part" "$file"
    echo "made the key $name: $file" >&2
}

make_key admin --role admin
make_key demo --role predict --role viewer
