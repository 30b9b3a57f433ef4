#!/bin/sh
# Make .venv from locks/NAME.txt, with this project in it and the embedding model beside it: environment.sh demo|dev.
# Called by the Makefile. Uses uv where there is one, else brings it into .venv. Safe to repeat and to interrupt.
set -eu
cd "$(dirname "$0")/.."
lock=locks/$1.txt
venv=.venv

fits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if ! fits "$venv/bin/python"; then
    python=
    for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11; do
        if fits "$candidate"; then python=$candidate && break; fi
    done
    [ "$python" ] || { echo "Python 3.11 or newer is needed: install it, or name it with PYTHON=/path/to/python3" >&2; exit 1; }
    rm -rf "$venv"
    if uv --version >/dev/null 2>&1; then
        uv venv --quiet --python "$("$python" -c 'import sys; print(sys.executable)')" "$venv"
    elif ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "Python's venv module is not complete; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    fi
fi

uv=uv
if ! uv --version >/dev/null 2>&1; then
    uv=$venv/bin/uv
    [ -x "$uv" ] || "$venv/bin/python" -m pip install --quiet --require-hashes -r locks/uv.txt
fi

echo "installing $lock into $venv" >&2
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --require-hashes -r "$lock"
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
"$venv/bin/python" -m inference_cache_toolkit.embedding_model
