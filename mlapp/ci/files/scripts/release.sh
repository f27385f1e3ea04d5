#!/usr/bin/env bash
# Test, train, sign, build and push. Writes MODEL_VERSION and IMAGE to .mlapp/release.env.
set -euo pipefail

if [ "${SIGN:=--keyless}" = --keyless ] && ! @SCRIPTS@/cosign.sh .mlapp/bin; then
  echo "There is no cosign: the image is not signed, and nothing is released. SIGN=off releases without signatures." >&2
  exit 1
fi
python -m pytest || [ $? -eq 5 ] # 5: there are no tests

mkdir -p .mlapp
mlapp train @TRAIN@--json >.mlapp/trained.json
version=$(python -c 'import json; print(json.load(open(".mlapp/trained.json"))["version"])')
# shellcheck disable=SC2086 # several words: --private-key FILE
[ "$SIGN" = off ] || mlapp models sign "$version" $SIGN
image=$(mlapp build --model "$version" --push)
if [ "$SIGN" = --keyless ]; then
  export PATH="$PWD/.mlapp/bin:$PATH"
  cosign sign --yes "$image"
fi
printf 'MODEL_VERSION=%s\nIMAGE=%s\n' "$version" "$image" >.mlapp/release.env
