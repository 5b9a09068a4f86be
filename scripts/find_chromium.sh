#!/usr/bin/env bash
# Makes sure of a Chromium for the browser test: installs it in CI, where its absence is a failure; elsewhere only says so.
set -euo pipefail

found() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

if found >/dev/null; then exit 0; fi
if [ "${CI:-}" != true ]; then
    echo "No Chromium here, so the browser test is skipped; on Debian: apt-get install chromium fonts-dejavu-core"
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
fi
found >/dev/null || { echo "Chromium is missing, and the browser test must run in CI" >&2; exit 1; }
