#!/usr/bin/env bash
# Test, train, sign, build and push. Writes MODEL_VERSION and IMAGE to .mlapp/release.env.
set -euo pipefail

python -m pytest || [ $? -eq 5 ] # 5: there are no tests

mkdir -p .mlapp
mlapp train @TRAIN@--json >.mlapp/trained.json
version=$(python -c 'import json; print(json.load(open(".mlapp/trained.json"))["version"])')
# shellcheck disable=SC2086 # several words: --private-key FILE
[ "${SIGN:=--keyless}" = off ] || mlapp models sign "$version" $SIGN
image=$(mlapp build --model "$version" --push)
if [ "$SIGN" = --keyless ]; then
  if command -v cosign >/dev/null; then
    cosign sign --yes "$image"
  else
    echo "cosign is not installed: the image is not signed." >&2
  fi
fi
printf 'MODEL_VERSION=%s\nIMAGE=%s\n' "$version" "$image" >.mlapp/release.env
