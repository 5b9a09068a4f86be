#!/usr/bin/env bash
# Makes the virtual environment that demo, tests and benchmarks share: make_env.sh PYTHON FOLDER. Safe to run again.
set -euo pipefail
python=$1
folder=$2

if [ ! -x "$folder/bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "Python 3.10 or newer is needed, and '$python' is not; name another one: make env PYTHON=python3.12" >&2
        exit 1
    }
    "$python" -m venv "$folder" || {
        echo "'$python' cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi
# --no-compile: Python compiles what is imported when it is imported, which is a small part of what is installed.
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet --no-compile -e ".[dev]"

bash "$(dirname "$0")/find_mongod.sh" "$folder"
