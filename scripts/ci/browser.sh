#!/usr/bin/env bash
# The browser that looks at the page of a served model.
set -euo pipefail
command -v chromium >/dev/null || command -v google-chrome >/dev/null && exit 0
sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
$sudo -E apt-get install -qq --no-install-recommends chromium >/dev/null
