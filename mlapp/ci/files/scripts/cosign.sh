#!/usr/bin/env bash
# Install cosign, which signs images, into the folder $1 unless it is installed. Version and content are pinned: take
# new ones from cosign_checksums.txt of a release. COSIGN_URL is a mirror, for runners that do not reach GitHub.
set -euo pipefail

if command -v cosign >/dev/null; then exit 0; fi
url=${COSIGN_URL:-https://github.com/sigstore/cosign/releases/download/v3.0.6}
case "$(uname -m)" in
  x86_64) file=cosign-linux-amd64 sum=c956e5dfcac53d52bcf058360d579472f0c1d2d9b69f55209e256fe7783f4c74 ;;
  aarch64) file=cosign-linux-arm64 sum=bedac92e8c3729864e13d4a17048007cfafa79d5deca993a43a90ffe018ef2b8 ;;
  *)
    echo "There is no pinned cosign for $(uname -m): install it in the job's image, or set SIGN=off." >&2
    exit 1
    ;;
esac
mkdir -p "$1"
python -c 'import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])' "$url/$file" "$1/$file"
if ! echo "$sum  $1/$file" | sha256sum --check --status; then
  rm "$1/$file"
  echo "$url/$file is not the pinned cosign: its SHA-256 differs." >&2
  exit 1
fi
chmod +x "$1/$file"
mv "$1/$file" "$1/cosign"
