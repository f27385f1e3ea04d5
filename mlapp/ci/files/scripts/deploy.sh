#!/usr/bin/env bash
# deploy.sh staging | production: ship IMAGE. Production gets a canary first, except for the first release.
set -euo pipefail

# The version is in the store when the store is shared; otherwise the image alone holds it.
model=()
mlapp models show "$MODEL_VERSION" >/dev/null 2>&1 && model=(--model "$MODEL_VERSION")

if [ "$1" = staging ]; then
  mlapp deploy @STAGING@ --image "$IMAGE" "${model[@]}"
  exit
fi
canary=(--canary "${CANARY:=10}" --auto-promote "${CANARY_TIME:=10m}")
mkdir -p .mlapp
mlapp status @PRODUCTION@ --json >.mlapp/status.json
live=$(python -c 'import json; print(json.load(open(".mlapp/status.json"))["release"] is not None)')
[ "$live" = True ] || canary=()
mlapp deploy @PRODUCTION@ --image "$IMAGE" "${model[@]}" "${canary[@]}"
[ ${#model[@]} -eq 0 ] || mlapp models promote "$MODEL_VERSION" production
