"""Seldon Core 2's objects of a release, as plain data: deterministic, without requests.

The fields follow the public documentation, https://docs.seldon.ai/seldon-core-2. Core 2 is under the Business Source
License; none of its code is copied here.
"""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.naming import Names, make_label_value
from mlapp.deploy.cluster.object_kinds import SELDON_EXPERIMENT, SELDON_MODEL, SELDON_SERVER, Kind
from mlapp.deploy.cluster.patches import apply_patches, select_canary_patches
from mlapp.deploy.cluster.settings import refuse_reversed_replica_range
from mlapp.deploy.cluster.storage_uri import fill_storage_uri
from mlapp.deploy.cluster.track_context import make_track_context_document
from mlapp.deploy.seldon.settings import SeldonSettings
from mlapp.deploy.target import Shipment
from mlapp.errors import ConfigError

SECTION = "targets.seldon"
SERVER_CONTAINER = "mlserver"


def render_seldon_release(shipment: Shipment, settings: SeldonSettings) -> list[dict[str, Any]]:
    """The Model, and the Server if mlapp creates one.

    Raises:
        ConfigError: settings contradict each other, or a patch does not fit.
    """
    refuse_contradictory_seldon_settings(settings)
    names = Names(shipment.app)
    documents = [_make_seldon_server(shipment, settings)] if settings.server_image else []
    documents.append(_make_seldon_model(shipment, settings, names.base))
    return apply_patches(documents, settings.patches, SECTION)


def render_seldon_canary(shipment: Shipment, settings: SeldonSettings, percent: int) -> list[dict[str, Any]]:
    """A second Model, and an Experiment that sends it a part of the first Model's requests."""
    refuse_contradictory_seldon_settings(settings)
    names = Names(shipment.app)
    spec = {
        "default": names.base,
        "candidates": [
            {"name": names.base, "weight": 100 - percent},
            {"name": names.canary, "weight": percent},
        ],
    }
    experiment = _make_seldon_object(shipment, settings, SELDON_EXPERIMENT, f"{names.base}-split", spec)
    documents = [_make_seldon_model(shipment, settings, names.canary), experiment]
    return apply_patches(documents, select_canary_patches(settings.patches, names, documents), SECTION)


def refuse_contradictory_seldon_settings(settings: SeldonSettings) -> None:
    """Check the settings.

    Raises:
        ConfigError: a setting is missing, or two contradict each other.
    """
    if settings.storage_uri is None:
        raise ConfigError(
            "targets.seldon.storage_uri is missing: Seldon Core 2 downloads the model from a bucket.",
            "Run `mlapp export mlserver --to FOLDER`, upload the folder, and set the URI.",
        )
    if settings.server and settings.server_image:
        raise ConfigError(
            "targets.seldon: `server` names an existing Server, and `server_image` creates one.", "Set one of them."
        )
    if settings.server_config and not settings.server_image:
        raise ConfigError(
            "targets.seldon.server_config is set, but mlapp creates no Server without `server_image`.",
            "Set server_image too, or remove server_config.",
        )
    refuse_reversed_replica_range(SECTION, settings.min_replicas, settings.max_replicas)


def _make_seldon_model(shipment: Shipment, settings: SeldonSettings, name: str) -> dict[str, Any]:
    uri = fill_storage_uri(settings.storage_uri or "", shipment, SECTION)
    spec: dict[str, Any] = {
        "storageUri": uri,
        "requirements": [_name_server_capability(shipment)] if settings.server_image else ["mlserver"],
        "replicas": settings.min_replicas,
    }
    if settings.max_replicas is not None:
        spec.update(minReplicas=settings.min_replicas, maxReplicas=settings.max_replicas)
    optional = {"server": settings.server, "secretName": settings.storage_secret, "memory": settings.memory}
    spec.update({key: value for key, value in optional.items() if value is not None})
    document = _make_seldon_object(shipment, settings, SELDON_MODEL, name, spec)
    if shipment.model_version:
        document["metadata"]["labels"][labels.VERSION] = make_label_value(shipment.model_version)
    if shipment.code_revision:
        document["metadata"].setdefault("annotations", {})[labels.CODE] = shipment.code_revision
    return document


def _make_seldon_server(shipment: Shipment, settings: SeldonSettings) -> dict[str, Any]:
    """A dedicated Server, because an export needs its own packages in addition to MLServer."""
    spec = {
        "serverConfig": settings.server_config or "mlserver",
        "extraCapabilities": [_name_server_capability(shipment)],
        "replicas": settings.min_replicas,
        "podSpec": {"containers": [{"name": SERVER_CONTAINER, "image": settings.server_image}]},
    }
    return _make_seldon_object(shipment, settings, SELDON_SERVER, Names(shipment.app).base, spec)


def _name_server_capability(shipment: Shipment) -> str:
    """A capability that only the app's own Server has, so that Seldon loads the model nowhere else."""
    return f"mlapp-{Names(shipment.app).base}"


def _make_seldon_object(
    shipment: Shipment, settings: SeldonSettings, kind: Kind, name: str, spec: dict[str, Any]
) -> dict[str, Any]:
    object_labels = labels.make_object_labels(Names(shipment.app), name, None, {**settings.labels, **shipment.labels})
    return make_track_context_document(settings, kind, name, object_labels, spec=spec)
