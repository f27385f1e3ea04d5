#!/usr/bin/env bash
# What the tests of pipelines need: curl, which GitHub's runners have, and gitlab-ci-local for GitLab's. act is on PyPI.
set -euo pipefail
if ! command -v curl >/dev/null; then
  sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends curl >/dev/null
fi
folder="$(cd "$(dirname "$0")/../.." && pwd)/.tools/gitlab"
[ -x "$folder/node_modules/.bin/gitlab-ci-local" ] && exit 0
if ! command -v npm >/dev/null; then
  sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null
fi
npm install --silent --no-audit --no-fund --prefix "$folder" gitlab-ci-local@4.64.1 >/dev/null
