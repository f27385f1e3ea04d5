#!/usr/bin/env bash
# promtool, with which the tests check the rules that monitoring makes for Prometheus.
set -euo pipefail
command -v promtool >/dev/null && exit 0
sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends prometheus >/dev/null
