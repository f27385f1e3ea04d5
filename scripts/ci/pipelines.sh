#!/usr/bin/env bash
# gitlab-ci-local, which runs the pipelines for GitLab in the tests. act, for GitHub's, is on PyPI.
set -euo pipefail
folder="$(cd "$(dirname "$0")/../.." && pwd)/.tools/gitlab"
[ -x "$folder/node_modules/.bin/gitlab-ci-local" ] && exit 0
if ! command -v npm >/dev/null; then
  sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null
fi
npm install --silent --no-audit --no-fund --prefix "$folder" gitlab-ci-local@4.64.1 >/dev/null
