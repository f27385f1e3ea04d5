#!/usr/bin/env bash
# The reverse proxy that the tests of the server's framing put in front of it.
set -euo pipefail
export PATH="$PATH:/usr/sbin"
command -v nginx >/dev/null && exit 0
sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends nginx-light >/dev/null
