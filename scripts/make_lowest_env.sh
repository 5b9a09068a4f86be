#!/usr/bin/env bash
# Makes a virtual environment with the lowest releases that pyproject.toml admits: make_lowest_env.sh PYTHON FOLDER.
# What these need in turn is as new as they admit, as in an environment of today. Safe to run again.
set -euo pipefail
python=$1
folder=$2

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
"$folder/bin/python" -m pip install --disable-pip-version-check --quiet uv
"$folder/bin/uv" pip install --quiet --python "$folder/bin/python" --resolution lowest-direct -e ".[lora]" "pytest>=8"
bash "$(dirname "$0")/find_mongod.sh" "$folder"
