"""Assemble an image from a base and layers, without running anything, and load it into the engine.

A build by the engine would record the time in the image and receive every layer again. This way, the same input results
in the same image ID, and only layers that the engine lacks are sent.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from mlapp.images.base import Base
from mlapp.images.engine import check_messages, translate_engine_errors
from mlapp.images.image_spec import LAYOUT, USER, VENV, ImageSpec
from mlapp.images.tar_layer import END, TIME, FolderLayer, Layer

if TYPE_CHECKING:
    from docker import DockerClient

SECOND = 1_000_000_000


class KnownLayers(NamedTuple):
    """Layers in the engine: digests of layers above the base, and the labels of an image with these layers."""

    layers: tuple[str, ...]
    labels: Mapping[str, str]


NOTHING = KnownLayers((), {})


def make_image_configuration(plan: ImageSpec, base: Base, layers: Sequence[Layer], labels: Mapping[str, str]) -> bytes:
    """The image's configuration, by the OCI image specification; the SHA-256 of these bytes is the image ID."""
    inspected = base.inspected
    inherited = inspected["Config"]
    environment = {**base.environment, **plan.environment}
    environment["PATH"] = f"{VENV}/bin:{environment['PATH']}"
    created = datetime.fromtimestamp(plan.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        **{key: value for key, value in inherited.items() if key in ("Volumes", "OnBuild", "Shell") and value},
        "User": USER,
        "ExposedPorts": {**(inherited.get("ExposedPorts") or {}), **({f"{plan.port}/tcp": {}} if plan.port else {})},
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": plan.entrypoint,
        "WorkingDir": plan.workdir,
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", *plan.healthcheck] if plan.healthcheck else ["NONE"],
            "Interval": 10 * SECOND,
            "Timeout": 5 * SECOND,
            "StartPeriod": 60 * SECOND,
            "Retries": 3,
        },
        "Labels": {**(inherited.get("Labels") or {}), **plan.labels, **labels},
    }
    copies = [f"COPY {LAYOUT}/{layer.source} {layer.target}" for layer in plan.layers]
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


def load_image(
    client: DockerClient,
    plan: ImageSpec,
    base: Base,
    layers: Sequence[Layer],
    *,
    labels: Mapping[str, str],
    tag: str,
) -> str:
    """Load the image into the engine; returns its ID. The image is tagged at the very end, or not at all.

    Raises:
        EngineError: the engine refused the image, or its disk is full.
    """
    made: list[bytes] = []

    def stream_archive() -> Iterator[bytes]:
        """Input for `docker load`: the layers that the engine lacks, the configuration, and the list of all layers."""
        members = [f"base/{number}" for number in range(len(base.layers))]
        for number, layer in enumerate(layers):
            members.append(f"layer/{number}")
            if isinstance(layer, FolderLayer):
                yield from stream_tar_member(members[-1], _read_ahead(layer.stream_tar()), layer.size)
        config = make_image_configuration(plan, base, layers, labels)
        made.append(config)
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        listed = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": members}]).encode()
        for member_name, content in ((name, config), ("manifest.json", listed)):
            yield from stream_tar_member(member_name, [content], len(content))
        yield END

    with translate_engine_errors("Loading the image"):
        for _ in check_messages(client.api.load_image(stream_archive(), quiet=True), "Loading the image"):
            pass
    return f"sha256:{hashlib.sha256(made[0]).hexdigest()}"


def _read_ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, each read and hashed while the engine processes the previous one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk


def stream_tar_member(name: str, content: Iterable[bytes], size: int) -> Iterator[bytes]:
    """A file in a tar, streamed."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, TIME
    yield entry.tobuf(tarfile.PAX_FORMAT)
    yield from content
    yield bytes(-size % tarfile.BLOCKSIZE)


def find_layers(client: DockerClient, base: Base, keys: Mapping[str, str], needs: str | None = None) -> KnownLayers:
    """The longest prefix of layers above the base with matching keys, from mlapp's images in the engine.

    Args:
        keys: label of a layer → fingerprint of the layer's input, in the order of the layers.
        needs: a label that an image must have to be considered.
    """
    best = NOTHING
    count = len(base.layers)
    first = next(iter(keys.items()))
    with translate_engine_errors():
        found: list[dict[str, Any]] = client.api.images(filters={"label": [f"{first[0]}={first[1]}"]})
        for entry in found:
            inspected = client.api.inspect_image(entry["Id"])
            digests = inspected["RootFS"]["Layers"]
            if digests[:count] != base.layers:
                continue
            labels = inspected["Config"].get("Labels") or {}
            if needs is not None and needs not in labels:
                continue
            agreeing = 0
            for label, key in keys.items():
                if labels.get(label) != key:
                    break
                agreeing += 1
            if agreeing > len(best.layers):
                best = KnownLayers(tuple(digests[count : count + agreeing]), labels)
    return best
