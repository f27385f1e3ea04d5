#!/usr/bin/env bash
# Print this job's OpenID Connect token as a credential for Kubernetes. A client runs it again when the token expires.
set -euo pipefail

if [ -n "${KUBE_ID_TOKEN:-}" ]; then # GitLab
  token=$KUBE_ID_TOKEN
else # GitHub
  token=$(curl --silent --show-error --fail --header "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" \
    "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=${KUBE_AUDIENCE:-kubernetes}" |
    python -c 'import json, sys; print(json.load(sys.stdin)["value"])')
fi
expires=$(python -c 'import datetime as d; print((d.datetime.now(d.timezone.utc) + d.timedelta(minutes=4)).isoformat())')
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", '
printf '"status": {"token": "%s", "expirationTimestamp": "%s"}}\n' "$token" "$expires"
