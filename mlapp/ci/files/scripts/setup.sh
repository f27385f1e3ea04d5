#!/usr/bin/env bash
# Install the project, log in to the registry, and write the kubeconfig. Each job sources this first.
set -eo pipefail

requirements=requirements.txt
if [ -f requirements-dev.txt ]; then requirements='requirements-dev.txt'; fi
python -m pip install --quiet --disable-pip-version-check -r "$requirements" pytest '@PACKAGE@[@EXTRAS@]'

# The role of AWS in a job of GitLab. On GitHub an action has done it.
if [ -n "${AWS_ROLE_ARN:-}" ] && [ -n "${AWS_ID_TOKEN:-}" ]; then
  printf '%s' "$AWS_ID_TOKEN" >"$AWS_WEB_IDENTITY_TOKEN_FILE"
fi

MLAPP_IMAGE__NAME=$(python @SCRIPTS@/registry.py)
export MLAPP_IMAGE__NAME
if [ -n "${GITHUB_ENV:-}" ]; then echo "MLAPP_IMAGE__NAME=$MLAPP_IMAGE__NAME" >>"$GITHUB_ENV"; fi

# The cluster. KUBE_SERVER is an API server that trusts the tokens of this CI system; EKS_CLUSTER is one of Amazon's.
# Without either, KUBECONFIG or the runner's own cluster is used.
if [ -n "${KUBE_SERVER:-}" ]; then
  mkdir -p ~/.kube
  cat >~/.kube/config <<YAML
apiVersion: v1
kind: Config
current-context: ci
contexts: [{name: ci, context: {cluster: ci, user: ci}}]
clusters: [{name: ci, cluster: {server: "$KUBE_SERVER"${KUBE_CA:+, certificate-authority-data: "$KUBE_CA"}}}]
users:
  - name: ci
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        command: "$PWD/@SCRIPTS@/kube-token.sh"
        interactiveMode: Never
YAML
elif [ -n "${EKS_CLUSTER:-}" ]; then
  command -v aws >/dev/null || python -m pip install --quiet --disable-pip-version-check awscli
  aws eks update-kubeconfig --name "$EKS_CLUSTER"
fi
