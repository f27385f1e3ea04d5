"""Putting an image together from a base and layers, without running anything, and giving it to the engine.

A build by the engine would note the time in the image, and be sent every layer again. This way the same input gives the
same image id, and only layers that the engine has not got are sent.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

from mlapp.images.base import Base
from mlapp.images.engine import checked, explained
from mlapp.images.layer import TIME, Layer
from mlapp.images.plan import LAYERS, LAYOUT, USER, VENV, Plan

if TYPE_CHECKING:
    from docker import DockerClient

CHUNK = 1 << 20
SECOND = 1_000_000_000


def configuration(plan: Plan, base: Base, layers: Sequence[Layer], labels: dict[str, str]) -> bytes:
    """The image's configuration, by the OCI image specification; the SHA-256 of these bytes is the image's id."""
    inspected = base.inspected
    inherited = inspected["Config"]
    environment = {**base.environment, **plan.environment}
    environment["PATH"] = f"{VENV}/bin:{base.environment['PATH']}"
    created = datetime.fromtimestamp(plan.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        **{key: value for key, value in inherited.items() if key in ("Volumes", "OnBuild", "Shell") and value},
        "User": USER,
        "ExposedPorts": {**(inherited.get("ExposedPorts") or {}), f"{plan.port}/tcp": {}},
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": plan.entrypoint,
        "WorkingDir": plan.workdir,
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", *plan.healthcheck],
            "Interval": 10 * SECOND,
            "Timeout": 5 * SECOND,
            "StartPeriod": 60 * SECOND,
            "Retries": 3,
        },
        "Labels": {**(inherited.get("Labels") or {}), **plan.labels, **labels},
    }
    copies = [f"COPY {LAYOUT}/{layer.source} {layer.target}" for layer in LAYERS]
    history = [{"created": created, "created_by": f"FROM {plan.base}"} for _ in base.layers]
    history += [{"created": created, "created_by": copy, "comment": "mlapp"} for copy in copies]
    document = {
        "created": created,
        "architecture": inspected["Architecture"],
        "os": inspected["Os"],
        **({"variant": inspected["Variant"]} if inspected.get("Variant") else {}),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [*base.layers, *(layer.digest for layer in layers)]},
        "history": history,
    }
    return json.dumps(document, sort_keys=True).encode()


def load(client: DockerClient, config: bytes, base: Base, layers: Sequence[Layer], tags: Sequence[str]) -> str:
    """Give the image to the engine; its id. It gets its tags at the very end, or not at all.

    Raises:
        EngineError: the engine refused it, or its disk is full.
    """
    with explained("Loading the image"):
        stream = client.api.load_image(_archive(config, base, layers, tags), quiet=True)
        for _ in checked(stream, "Loading the image"):
            pass
    return f"sha256:{hashlib.sha256(config).hexdigest()}"


def _archive(config: bytes, base: Base, layers: Sequence[Layer], tags: Sequence[str]) -> Iterator[bytes]:
    """What `docker load` reads: the layers that it has not got, the configuration, and the list of all."""
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    digests = [*base.layers, *(layer.digest for layer in layers)]
    listed = [{"Config": name, "RepoTags": list(tags), "Layers": [_member(digest) for digest in digests]}]
    for layer in layers:
        if layer.tar is not None:
            with layer.tar.open("rb") as file:
                yield from _entry(_member(layer.digest), file, layer.tar.stat().st_size)
    for member, content in ((name, config), ("manifest.json", json.dumps(listed).encode())):
        yield from _entry(member, io.BytesIO(content), len(content))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _entry(name: str, file: IO[bytes], size: int) -> Iterator[bytes]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, TIME
    yield entry.tobuf(tarfile.USTAR_FORMAT)
    while chunk := file.read(CHUNK):
        yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)


def _member(digest: str) -> str:
    return f"{digest.partition(':')[2]}/layer.tar"


def find_layers(client: DockerClient, base: Base, keys: dict[str, str]) -> list[str]:
    """The digests of the first layers above the base that an image of ours in the engine has, as far as the keys agree.

    Args:
        keys: label of a layer → what the layer was made from, in the order of the layers.
    """
    best: list[str] = []
    count = len(base.layers)
    first = next(iter(keys.items()))
    with explained():
        found: list[dict[str, Any]] = client.api.images(filters={"label": [f"{first[0]}={first[1]}"]})
        for entry in found:
            inspected = client.api.inspect_image(entry["Id"])
            digests = inspected["RootFS"]["Layers"]
            if digests[:count] != base.layers:
                continue
            labels = inspected["Config"].get("Labels") or {}
            agreeing = 0
            for label, key in keys.items():
                if labels.get(label) != key:
                    break
                agreeing += 1
            if agreeing > len(best):
                best = digests[count : count + agreeing]
    return best
