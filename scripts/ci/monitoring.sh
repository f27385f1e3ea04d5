#!/usr/bin/env bash
# Prometheus with promtool, and Alertmanager: the tests check the rules and alerts of monitoring with them.
set -euo pipefail
command -v promtool >/dev/null && command -v prometheus-alertmanager >/dev/null && exit 0
sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
$sudo apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends prometheus prometheus-alertmanager >/dev/null
