"""Volumes of the pods: PersistentVolumeClaims, and space for a model that is fetched at start."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster.object_kinds import CLAIM
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.settings import ModelPull


def make_volume_claims(context: RenderContext) -> list[dict[str, Any]]:
    """A PersistentVolumeClaim for each volume that does not name an existing one."""
    claims = []
    for name, volume in context.settings.volumes.items():
        if volume.claim is None:
            spec: dict[str, Any] = {
                "accessModes": [volume.access_mode],
                "resources": {"requests": {"storage": str(volume.size)}},
            }
            if volume.storage_class is not None:
                spec["storageClassName"] = volume.storage_class
            claims.append(context.make_document(CLAIM, context.names.volume_name(name), spec=spec))
    return claims


def list_claimed_volumes(context: RenderContext) -> list[dict[str, Any]]:
    """The pod's volumes that use claims."""
    return [
        {"name": name, "persistentVolumeClaim": {"claimName": volume.claim or context.names.volume_name(name)}}
        for name, volume in context.settings.volumes.items()
    ]


def list_volume_mounts(context: RenderContext) -> list[dict[str, Any]]:
    """The container's mounts of the claimed volumes."""
    return [
        {"name": name, "mountPath": volume.path, **({"readOnly": True} if volume.read_only else {})}
        for name, volume in context.settings.volumes.items()
    ]


def make_model_volume(pull: ModelPull) -> dict[str, Any]:
    """Space for the model, for the lifetime of the pod."""
    return {"name": "model", "emptyDir": {"sizeLimit": str(pull.size)}}
