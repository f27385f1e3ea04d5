"""Find layers of a new image in images that the engine already has, by fingerprints in their labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from mlapp.images.base import Base
from mlapp.images.engine import translate_image_engine_errors

if TYPE_CHECKING:
    from docker import DockerClient

DEPENDENCIES = "mlapp.layer.dependencies"
"""Label with a fingerprint of the locked requirements. It is known before they are installed."""

PACKAGES = "mlapp.layer.packages"
"""Label with the title and the fingerprint of each layer of packages, as a JSON object, from the lowest up."""

MODEL_LAYER = "mlapp.layer.model"
"""Label with a fingerprint of the model's files."""


class EngineLayers(NamedTuple):
    """Layers in the engine: digests of layers above the base, and the labels of an image with these layers."""

    layers: tuple[str, ...]
    labels: Mapping[str, str]


NOTHING = EngineLayers((), {})


def find_reusable_layers(
    client: DockerClient, base: Base, dependencies: str, model: str, required_label: str | None = None
) -> EngineLayers:
    """The layers of packages for these dependencies and, if an image also has it, the model's layer.

    Args:
        dependencies: the fingerprint of the locked requirements.
        model: the fingerprint of the model.
        required_label: a label that an image must have to be considered.
    """
    best = NOTHING
    for digests, labels in _iterate_reusable_images(client, base, f"{DEPENDENCIES}={dependencies}", required_label):
        packages = len(parse_package_layers(labels))
        count = packages + (labels.get(MODEL_LAYER) == model)
        if packages and count > len(best.layers):
            best = EngineLayers(tuple(digests[:count]), labels)
    return best


def find_reusable_package_layers(
    client: DockerClient, base: Base, packages: Mapping[str, str], required_label: str | None = None
) -> EngineLayers:
    """The layers of the first packages that an image has in the same order.

    Args:
        packages: the fingerprint of each layer by title.
    """
    best = NOTHING
    for digests, labels in _iterate_reusable_images(client, base, PACKAGES, required_label):
        count = 0
        for new_layer, engine_layer in zip(packages.items(), parse_package_layers(labels).items(), strict=False):
            if new_layer != engine_layer:
                break
            count += 1
        if count > len(best.layers):
            best = EngineLayers(tuple(digests[:count]), labels)
    return best


def parse_package_layers(labels: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints of an image's layers of packages by title; empty if mlapp did not build the image."""
    try:
        parsed = json.loads(labels.get(PACKAGES, "{}"))
    except ValueError:
        return {}
    return {str(title): str(key) for title, key in parsed.items()} if isinstance(parsed, dict) else {}


def _iterate_reusable_images(
    client: DockerClient, base: Base, label: str, required_label: str | None
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The layers above the base and the labels of each image with a label, on the same base."""
    import docker.errors

    count = len(base.layers)
    with translate_image_engine_errors():
        for entry in client.api.images(filters={"label": [label]}):
            try:
                details = client.api.inspect_image(entry["Id"])
            except docker.errors.ImageNotFound:  # removed in the meantime
                continue
            digests, labels = details["RootFS"]["Layers"], details["Config"].get("Labels") or {}
            if digests[:count] == base.layers and (required_label is None or required_label in labels):
                yield digests[count:], labels
