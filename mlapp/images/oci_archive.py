"""Load an image into an engine with containerd's image store, as an OCI image layout without the blobs that it has.

In this store, a layer is a compressed blob, as in a registry. The manifest of each image with the layer has its
descriptor. The engine's API returns no manifests, so mlapp's images have the descriptors of their lower layers in a
label, and the next build omits these layers. The descriptors of a base are read once, from the engine's export of it.

The layout: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from mlapp.images.base import Base
from mlapp.images.docker_archive import make_image_configuration
from mlapp.images.engine import ImageError, check_image_engine_messages, translate_image_engine_errors
from mlapp.images.image_spec import ImageSpec
from mlapp.images.layer_reuse import NOTHING, EngineLayers
from mlapp.images.tar_layer import CHUNK, END, FolderLayer, Layer, stream_tar_member

if TYPE_CHECKING:
    from docker import DockerClient

Descriptor = dict[str, Any]
"""Media type, digest and size of a blob."""

BLOBS = "mlapp.blobs"
"""Label with the descriptors of all layers but the last, as JSON."""
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
GZIP_LEVEL = 4
PIECE = 4 * CHUNK
"""Bytes to compress at a time, each in a thread: the gzip format allows concatenated members."""
MAX_JSON_SIZE = 4 << 20


def load_oci_image(
    client: DockerClient,
    spec: ImageSpec,
    base: Base,
    layers: Sequence[Layer],
    *,
    labels: Mapping[str, str],
    tag: str,
    engine_layers: EngineLayers = NOTHING,
) -> str:
    """Load the image into the engine; returns its ID. The image is tagged at the very end, or not at all.

    Args:
        engine_layers: the image that provides the layers without a folder.

    Raises:
        EngineError: the engine refused the image, or its disk is full.
    """
    with ExitStack() as stack:
        blobs: list[Descriptor] = json.loads(engine_layers.labels.get(BLOBS, "[]")) or _find_base_oci_blobs(
            client, base
        )
        blobs = blobs[: len(base.layers) + len(engine_layers.layers)]
        packed_layers = []
        for layer in layers:
            if isinstance(layer, FolderLayer):
                file = stack.enter_context(tempfile.TemporaryFile())
                blobs.append(_pack_oci_layer(layer, file))
                layer.discard()
                packed_layers.append((blobs[-1], file))
        config = make_image_configuration(spec, base, layers, {**labels, BLOBS: json.dumps(blobs[:-1])})
        config_blob = _describe_oci_blob(CONFIG, config)
        manifest = _encode_oci_json({"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": blobs})
        manifest_blob = _describe_oci_blob(MANIFEST, manifest)
        index = _encode_oci_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest_blob]})

        def stream_archive() -> Iterator[bytes]:
            for blob, file in packed_layers:
                file.seek(0)
                yield from stream_tar_member(
                    _make_oci_blob_path(blob), iter(partial(file.read, CHUNK), b""), blob["size"]
                )
            for name, content in (
                (_make_oci_blob_path(config_blob), config),
                (_make_oci_blob_path(manifest_blob), manifest),
                ("index.json", index),
                ("oci-layout", LAYOUT),
            ):
                yield from stream_tar_member(name, [content], len(content))
            yield END

        with translate_image_engine_errors("Loading the image"):
            for message in check_image_engine_messages(
                client.api.load_image(stream_archive(), quiet=True), "Loading the image"
            ):
                if "Error unpacking" in message.get("stream", ""):
                    raise ImageError(f"Loading the image: {message['stream'].strip()}", "Check the engine's log.")
            repository, _, name = tag.rpartition(":")
            client.api.tag(manifest_blob["digest"], repository, name)
    return str(manifest_blob["digest"])


def _find_base_oci_blobs(client: DockerClient, base: Base) -> list[Descriptor]:
    """The descriptors of a base's layers.

    Raises:
        ImageError: the engine's export has no manifest for the base's platform.
    """
    documents: dict[str, Any] = {}
    export: Any = _ChunkStream(client.api.get_image(base.id))
    with translate_image_engine_errors(f"Reading {base.id}"), tarfile.open(fileobj=export, mode="r|") as tar:
        for entry in tar:
            if entry.isfile() and entry.size < MAX_JSON_SIZE and (file := tar.extractfile(entry)) is not None:
                try:
                    documents[entry.name] = json.loads(file.read())
                except ValueError:
                    continue
    base_layers = base.layers
    for document in documents.values():
        config = (
            documents.get(_make_oci_blob_path(document["config"]))
            if isinstance(document, dict) and "config" in document
            else None
        )
        if isinstance(config, dict) and (config.get("rootfs") or {}).get("diff_ids") == base_layers:
            layers: list[Descriptor] = document["layers"]
            return [{name: layer[name] for name in ("mediaType", "digest", "size")} for layer in layers]
    raise ImageError(
        f"The engine does not report the layers of the base image {base.id}.", "Pull it again: docker pull."
    )


def _pack_oci_layer(layer: FolderLayer, file: IO[bytes]) -> Descriptor:
    """Write the compressed layer; returns its blob's descriptor."""
    digest, size = hashlib.sha256(), 0
    for piece in _gzip_oci_layer(layer.stream_tar()):
        file.write(piece)
        digest.update(piece)
        size += len(piece)
    return {"mediaType": LAYER, "digest": f"sha256:{digest.hexdigest()}", "size": size}


def _gzip_oci_layer(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, compressed reproducibly: without time and name."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[bytes]] = deque()
        for piece in _cut_oci_pieces(chunks):
            pending.append(pool.submit(_gzip_oci_piece, piece))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _gzip_oci_piece(piece: bytes) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return packer.compress(piece) + packer.flush()


def _cut_oci_pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, regrouped in pieces of equal size."""
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= PIECE:
            yield bytes(buffer[:PIECE])
            del buffer[:PIECE]
    yield bytes(buffer)


def _describe_oci_blob(media_type: str, content: bytes) -> Descriptor:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _make_oci_blob_path(blob: Descriptor) -> str:
    return "blobs/" + str(blob["digest"]).replace(":", "/")


def _encode_oci_json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


class _ChunkStream:
    """Chunks as a file object for sequential reading."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and (chunk := next(self._chunks, b"")):
            self._rest += chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
