"""Assemble an image from a base and layers, without running anything, and load it into the engine.

A build by the engine would record the time in the image and receive every layer again. This way, the same input results
in the same image ID, and only layers that the engine lacks are sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from threading import Event
from typing import TYPE_CHECKING

from mlapp.images.base import Base
from mlapp.images.engine import check_image_engine_messages, translate_image_engine_errors
from mlapp.images.image_spec import LAYOUT, USER, VENV, ImageSpec
from mlapp.images.layer_reuse import PACKAGES, parse_package_layers
from mlapp.images.tar_layer import END, FolderLayer, Layer, stream_tar_member

if TYPE_CHECKING:
    from docker import DockerClient

SECOND = 1_000_000_000

ARCHIVE = 32 << 20
"""Minimum bytes of layers after which an archive is sent and the next one is started."""

MAX_ARCHIVES = 2
"""Maximum number of archives in the engine: one that is sent, and one that is unpacked."""


def make_image_configuration(spec: ImageSpec, base: Base, layers: Sequence[Layer], labels: Mapping[str, str]) -> bytes:
    """The image's configuration, by the OCI image specification; the SHA-256 of these bytes is the image ID."""
    base_details = base.inspected
    base_config = base_details["Config"]
    environment = {**base.environment, **spec.environment}
    environment["PATH"] = f"{VENV}/bin:{environment['PATH']}"
    created = datetime.fromtimestamp(spec.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = {
        **{key: value for key, value in base_config.items() if key in ("Volumes", "OnBuild", "Shell") and value},
        "User": USER,
        "ExposedPorts": {**(base_config.get("ExposedPorts") or {}), **({f"{spec.port}/tcp": {}} if spec.port else {})},
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
        "Labels": {**(base_config.get("Labels") or {}), **spec.labels, **labels},
    }
    packages, *others = (f"COPY {LAYOUT}/{layer.source} {layer.target}" for layer in spec.layers)
    copies = [(packages, title) for title in parse_package_layers(labels)] + [(copy, "mlapp") for copy in others]
    history = [{"created": created, "created_by": f"FROM {spec.base}"} for _ in base.layers]
    history += [{"created": created, "created_by": copy, "comment": comment} for copy, comment in copies]
    document = {
        "created": created,
        "architecture": base_details["Architecture"],
        "os": base_details["Os"],
        **({"variant": base_details["Variant"]} if base_details.get("Variant") else {}),
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

    An engine stores an archive before it unpacks the layers in it. So the layers are sent in several archives, each
    while the engine unpacks the previous one, and while upper layers are still written. All but the last archive become
    images without a name, each of which is removed when the next one has its layers.

    Raises:
        EngineError: the engine refused the image, or its disk is full.
    """
    archives: list[_Archive] = []
    stopped = Event()
    with ThreadPoolExecutor(1) as cleaner, ThreadPoolExecutor(MAX_ARCHIVES) as senders:
        try:
            for end in _iterate_archive_ends(layers):
                start = len(archives[-1].layers) if archives else 0
                if end == len(layers):
                    configure = partial(make_image_configuration, spec, base, layers, labels)
                else:
                    configure = partial(_make_archive_configuration, base, layers[:end], labels)
                archive = _Archive(layers[:end], start, configure, tag if end == len(layers) else None, stopped)
                previous = archives[-1] if archives else None
                archive.image_id = senders.submit(_send_archive_to_engine, client, base, archive, previous, cleaner)
                archives.append(archive)
            image_id = archives[-1].image_id.result()
            _remove_images_of_killed_builds(client, [*base.layers, *(layer.digest for layer in layers)])
            return image_id
        finally:
            stopped.set()
            senders.shutdown(cancel_futures=True)
            for archive in archives:
                _remove_nameless_archive_image(client, archive)


@dataclass
class _Archive:
    """Input for one `docker load`.

    Attributes:
        layers: all layers of the image, from the lowest; those before `start` are in earlier archives.
        configure: makes the image's configuration when all layers have been read and their digests are known.
        tag: the image's name; None for an image that is removed again.
        stopped: set when the build ends, so that an interrupted build sends no more data.
        streamed: set when the engine has the layers, or when sending them failed.
        image_id: the image's ID, once the engine has loaded it.
        nameless_id: the ID of a loaded image without a name, until it is removed.
    """

    layers: Sequence[Layer]
    start: int
    configure: Callable[[], bytes]
    tag: str | None
    stopped: Event
    streamed: Event = field(default_factory=Event)
    image_id: Future[str] = field(default_factory=Future)
    nameless_id: str | None = None


def _iterate_archive_ends(layers: Sequence[Layer]) -> Iterator[int]:
    """Divide the layers into archives as they become complete; yields the number of layers up to the end of each."""
    size = 0
    for number, layer in enumerate(layers):
        if size >= ARCHIVE or (size and not layer.is_complete):
            yield number
            size = 0
        if isinstance(layer, FolderLayer):
            size += layer.size
    yield len(layers)


def _send_archive_to_engine(
    client: DockerClient, base: Base, archive: _Archive, previous: _Archive | None, cleaner: Executor
) -> str:
    """Send an archive's layers to the engine, and the rest when the previous one is loaded; returns the image's ID.

    Args:
        cleaner: removes the folders of the layers while the engine unpacks them.
    """
    configuration = b""

    def stream_archive() -> Iterator[bytes]:
        """Input for `docker load`: the layers that the engine lacks, the configuration, and the list of all layers."""
        nonlocal configuration
        members = [f"base/{number}" for number in range(len(base.layers))]
        members += [f"layer/{number}" for number in range(len(archive.layers))]
        sent_layers = []
        if previous is not None:
            previous.streamed.wait()
        for number, layer in enumerate(archive.layers):
            if number >= archive.start and isinstance(layer, FolderLayer):
                tar = _read_docker_archive_ahead(layer.stream_tar())
                for chunk in stream_tar_member(f"layer/{number}", tar, layer.size):
                    if archive.stopped.is_set():
                        raise CancelledError
                    yield chunk
                sent_layers.append(layer)
        archive.streamed.set()
        if previous is not None:
            previous.image_id.result()
        if archive.stopped.is_set():
            raise CancelledError
        configuration = archive.configure()
        name = f"{hashlib.sha256(configuration).hexdigest()}.json"
        tags = [archive.tag] if archive.tag else None
        manifest = json.dumps([{"Config": name, "RepoTags": tags, "Layers": members}]).encode()
        for member_name, content in ((name, configuration), ("manifest.json", manifest)):
            yield from stream_tar_member(member_name, [content], len(content))
        for layer in sent_layers:
            cleaner.submit(layer.discard)
        yield END

    try:
        with translate_image_engine_errors("Loading the image"):
            messages = client.api.load_image(stream_archive(), quiet=True)
            for _ in check_image_engine_messages(messages, "Loading the image"):
                pass
        identity = f"sha256:{hashlib.sha256(configuration).hexdigest()}"
        if archive.tag is None:
            archive.nameless_id = identity
        return identity
    finally:
        archive.streamed.set()
        if previous is not None:
            _remove_nameless_archive_image(client, previous)


def _make_archive_configuration(base: Base, layers: Sequence[Layer], labels: Mapping[str, str]) -> bytes:
    """The configuration of an image with the first layers. Its label lets another build find them."""
    packages = dict(islice(parse_package_layers(labels).items(), len(layers)))
    document = {
        "architecture": base.inspected["Architecture"],
        "os": base.inspected["Os"],
        "config": {"Labels": {PACKAGES: json.dumps(packages)}},
        "rootfs": {"type": "layers", "diff_ids": [*base.layers, *(layer.digest for layer in layers)]},
    }
    return json.dumps(document, sort_keys=True).encode()


def _remove_nameless_archive_image(client: DockerClient, archive: _Archive) -> None:
    """Remove the image of an archive, if the engine has loaded it without a name."""
    import docker.errors
    import requests

    identity, archive.nameless_id = archive.nameless_id, None
    if identity is not None:
        # Another build of the same packages may have removed it, and the engine may be gone.
        with contextlib.suppress(docker.errors.APIError, requests.RequestException):
            client.api.remove_image(identity)


def _remove_images_of_killed_builds(client: DockerClient, digests: Sequence[str]) -> None:
    """Remove images without a name that a killed build left behind, if the complete image has all of their layers.

    A build that runs at the same time loses nothing: the engine keeps the layers for the complete image.
    """
    import docker.errors
    import requests

    with contextlib.suppress(docker.errors.APIError, requests.RequestException):
        for entry in client.api.images(filters={"dangling": ["true"], "label": [PACKAGES]}):
            found = client.api.inspect_image(entry["Id"])
            own_layers = found["RootFS"]["Layers"]
            if set(found["Config"]["Labels"]) == {PACKAGES} and own_layers == list(digests[: len(own_layers)]):
                client.api.remove_image(entry["Id"])


def _read_docker_archive_ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same chunks. Reads and hashes each one while the engine processes the previous one."""
    with ThreadPoolExecutor(1) as pool:
        next_chunk = pool.submit(next, chunks, None)
        while (chunk := next_chunk.result()) is not None:
            next_chunk = pool.submit(next, chunks, None)
            yield chunk
