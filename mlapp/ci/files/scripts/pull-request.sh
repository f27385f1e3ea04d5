#!/usr/bin/env bash
# Test the project, train it on a small sample, and write a summary for the reviewer to .mlapp/comment.md.
set -euo pipefail

small=(@SMALL@) # parameters of the small training: -p NAME=VALUE …
store=.mlapp/pull-request

python -m pytest || [ $? -eq 5 ] # 5: there are no tests

mkdir -p .mlapp
mlapp models pull production --to "$store" >/dev/null || echo "There is no production version to compare with, or it cannot be read."
export MLAPP_STORE__URL=$store MLAPP_STORE__VERIFY=none
mlapp train "${small[@]}" --json >.mlapp/trained.json
{
  echo '<!-- mlapp @NAME@ -->'
  echo "### @NAME@: model of this change${small[*]:+, trained with \`${small[*]}\`}"
  echo
  production=$(mlapp models list --json | python -c 'import json, sys; print(len(json.load(sys.stdin)) - 1)')
  if [ "$production" -gt 0 ]; then
    echo "Version 1 is production's model, version 2 is this change's."
    echo
    mlapp models compare 1 2 --markdown
  else
    echo "There is no version \`production\` to compare it with."
    echo
    mlapp models compare 1 --markdown
  fi
} >.mlapp/comment.md
unset MLAPP_STORE__URL MLAPP_STORE__VERIFY

# What the change does to production's objects, with the image that is live there: the new one is not built yet.
if [ -n "${KUBE_SERVER:-}${EKS_CLUSTER:-}${KUBECONFIG:-}" ]; then
  mlapp status @PRODUCTION@ --json >.mlapp/status.json
  image=$(python -c 'import json; print(((json.load(open(".mlapp/status.json"))["release"] or {}).get("shipment") or {}).get("image", ""))')
  {
    echo
    echo "### @NAME@: objects in production"
    echo
    if [ -z "$image" ]; then
      echo "Nothing is deployed yet."
    elif mlapp deploy @PRODUCTION@ --image "$image" --model production --diff >.mlapp/diff.txt; then
      echo "No object changes, except for the new image."
    else
      [ -s .mlapp/diff.txt ] || exit 1 # an error, and no difference
      # shellcheck disable=SC2016 # the backticks are Markdown
      printf '```diff\n%s\n```\n' "$(head --bytes 50000 .mlapp/diff.txt)"
    fi
  } >>.mlapp/comment.md
fi
cat .mlapp/comment.md
