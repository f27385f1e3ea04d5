#!/usr/bin/env bash
# What the tests of images need: a Docker engine, Compose, a registry's program, and base images with Python, made from Debian.
set -euo pipefail
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
missing=()
export PATH="$PATH:/usr/sbin:/sbin"
command -v dockerd >/dev/null || missing+=(docker.io)
command -v debootstrap >/dev/null || missing+=(debootstrap debian-archive-keyring) # Ubuntu has no keys of Debian
command -v docker-registry >/dev/null || missing+=(docker-registry)
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null || missing+=(docker-compose)
if [ ${#missing[@]} -gt 0 ]; then
  $sudo apt-get update -qq
  command -v docker >/dev/null || ! apt-cache show docker-cli >/dev/null 2>&1 || missing+=(docker-cli) # from Debian 13
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! docker info >/dev/null 2>&1; then
  setsid $sudo "$(command -v dockerd)" >/tmp/dockerd.log 2>&1 </dev/null &
  for _ in $(seq 60); do docker info >/dev/null 2>&1 && break; sleep 1; done
  docker info >/dev/null
fi
image=mlapp-test/python:3.11
if ! docker image inspect "$image" >/dev/null 2>&1; then
  root=$(mktemp -d)
  trap '$sudo rm -rf "$root"' EXIT
  $sudo debootstrap --variant=minbase --include=python3,libgomp1,ca-certificates bookworm "$root/fs" >"$root/log" ||
    { tail "$root/log" >&2; exit 1; }
  $sudo rm -rf "$root"/fs/var/cache/apt/* "$root"/fs/var/lib/apt/lists/* "$root"/fs/var/log/*
  $sudo rm -rf "$root"/fs/usr/share/{doc,man,info,locale}/*
  $sudo tar -C "$root/fs" --numeric-owner -c . | docker import -c 'ENV LANG=C.UTF-8' -c 'CMD ["python3"]' - "$image"
fi
if ! docker image inspect mlapp-test/python-dev:3.11 >/dev/null 2>&1; then
  printf '%s\n' "FROM $image" "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev \
    python3-dev >/dev/null && rm -rf /var/lib/apt/lists/*" | docker build --quiet --tag mlapp-test/python-dev:3.11 -
fi
