#!/usr/bin/env bash
# The browser that looks at the page of a served model.
set -euo pipefail
command -v chromium >/dev/null || command -v google-chrome >/dev/null && exit 0
sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null
