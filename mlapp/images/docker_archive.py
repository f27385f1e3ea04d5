"""Assemble an image from a base and layers, without running anything, and load it into the engine.

A build by the engine would record the time in the image and receive every layer again. This way, the same input results
in the same image ID, and only layers that the engine lacks are sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import datetime, timezone
from functools import partial
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from mlapp.images.base import Base
from mlapp.images.engine import check_image_engine_messages, translate_image_engine_errors
from mlapp.images.image_spec import LAYOUT, USER, VENV, ImageSpec
from mlapp.images.layer_reuse import PACKAGES, parse_package_layers
from mlapp.images.tar_layer import END, FolderLayer, Layer, stream_tar_member

if TYPE_CHECKING:
    from docker import DockerClient

SECOND = 1_000_000_000


def make_image_configuration(spec: ImageSpec, base: Base, layers: Sequence[Layer], labels: Mapping[str, str]) -> bytes:
    """The image's configuration, by the OCI image specification; the SHA-256 of these bytes is the image ID."""
    inspected = base.inspected
    inherited = inspected["Config"]
    environment = {**base.environment, **spec.environment}
    environment["PATH"] = f"{VENV}/bin:{environment['PATH']}"
    created = datetime.fromtimestamp(spec.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        **{key: value for key, value in inherited.items() if key in ("Volumes", "OnBuild", "Shell") and value},
        "User": USER,
        "ExposedPorts": {**(inherited.get("ExposedPorts") or {}), **({f"{spec.port}/tcp": {}} if spec.port else {})},
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": spec.entrypoint,
        "WorkingDir": spec.workdir,
        "StopSignal": "SIGTERM",
        "Healthcheck": {
            "Test": ["CMD", *spec.healthcheck] if spec.healthcheck else ["NONE"],
            "Interval": 10 * SECOND,
            "Timeout": 5 * SECOND,
            "StartPeriod": 60 * SECOND,
            "Retries": 3,
        },
        "Labels": {**(inherited.get("Labels") or {}), **spec.labels, **labels},
    }
    packages, *others = (f"COPY {LAYOUT}/{layer.source} {layer.target}" for layer in spec.layers)
    copies = [(packages, title) for title in parse_package_layers(labels)] + [(copy, "mlapp") for copy in others]
    history = [{"created": created, "created_by": f"FROM {spec.base}"} for _ in base.layers]
    history += [{"created": created, "created_by": copy, "comment": comment} for copy, comment in copies]
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


def load_docker_image(
    client: DockerClient,
    spec: ImageSpec,
    base: Base,
    layers: Sequence[Layer],
    *,
    labels: Mapping[str, str],
    tag: str,
) -> str:
    """Load the image into the engine; returns its ID. The image is tagged at the very end, or not at all.

    An engine processes an archive only when it has all of it. So while upper layers are still written, the complete
    layers below them are loaded as images without a name, which are removed at the end.

    Raises:
        EngineError: the engine refused the image, or its disk is full.
    """
    waiting = list(layers)
    nameless = []
    with ThreadPoolExecutor(1) as cleaner:
        try:
            while not all(layer.is_complete for layer in waiting):
                ready = list(takewhile(lambda layer: layer.is_complete, waiting))
                if any(isinstance(layer, FolderLayer) for layer in ready):
                    configure = partial(_make_archive_configuration, base, ready, labels)
                    nameless.append(_send_image_to_engine(client, base, ready, configure, None, cleaner))
                    waiting[: len(ready)] = [Layer(layer.digest) for layer in ready]
                else:
                    waiting[len(ready)].wait()
            configure = partial(make_image_configuration, spec, base, waiting, labels)
            return _send_image_to_engine(client, base, waiting, configure, tag, cleaner)
        finally:
            for identity in nameless:
                _remove_nameless_archive_image(client, identity)


def _send_image_to_engine(
    client: DockerClient,
    base: Base,
    layers: Sequence[Layer],
    configure: Callable[[], bytes],
    tag: str | None,
    cleaner: Executor,
) -> str:
    """Send an image's new layers to the engine; returns its ID.

    Args:
        configure: makes the configuration when all layers have been read and their digests are known.
        cleaner: removes the folders of the new layers while the engine processes them.
    """
    configuration = b""

    def stream_archive() -> Iterator[bytes]:
        """Input for `docker load`: the layers that the engine lacks, the configuration, and the list of all layers."""
        nonlocal configuration
        members = [f"base/{number}" for number in range(len(base.layers))]
        new = [layer for layer in layers if isinstance(layer, FolderLayer)]
        for number, layer in enumerate(layers):
            members.append(f"layer/{number}")
            if isinstance(layer, FolderLayer):
                yield from stream_tar_member(members[-1], _read_docker_archive_ahead(layer.stream_tar()), layer.size)
        configuration = configure()
        name = f"{hashlib.sha256(configuration).hexdigest()}.json"
        listed = json.dumps([{"Config": name, "RepoTags": [tag] if tag else None, "Layers": members}]).encode()
        for member_name, content in ((name, configuration), ("manifest.json", listed)):
            yield from stream_tar_member(member_name, [content], len(content))
        for layer in new:
            cleaner.submit(layer.discard)
        yield END

    with translate_image_engine_errors("Loading the image"):
        for _ in check_image_engine_messages(client.api.load_image(stream_archive(), quiet=True), "Loading the image"):
            pass
    return f"sha256:{hashlib.sha256(configuration).hexdigest()}"


def _make_archive_configuration(base: Base, layers: Sequence[Layer], labels: Mapping[str, str]) -> bytes:
    """The configuration of an image with the first layers, whose label lets another build find them."""
    packages = dict(islice(parse_package_layers(labels).items(), len(layers)))
    document = {
        "architecture": base.inspected["Architecture"],
        "os": base.inspected["Os"],
        "config": {"Labels": {PACKAGES: json.dumps(packages)}},
        "rootfs": {"type": "layers", "diff_ids": [*base.layers, *(layer.digest for layer in layers)]},
    }
    return json.dumps(document, sort_keys=True).encode()


def _remove_nameless_archive_image(client: DockerClient, identity: str) -> None:
    import docker.errors
    import requests

    # Another build of the same packages may have removed it, and the engine may be gone.
    with contextlib.suppress(docker.errors.APIError, requests.RequestException):
        client.api.remove_image(identity)


def _read_docker_archive_ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks, each read and hashed while the engine processes the previous one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, chunks, None)
        while (chunk := coming.result()) is not None:
            coming = thread.submit(next, chunks, None)
            yield chunk
