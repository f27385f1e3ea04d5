"""The Namespace of an app, if mlapp creates it."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster.labels import MANAGED_BY
from mlapp.deploy.cluster.settings import Namespace


def make_namespace(namespace: str | Namespace | None) -> dict[str, Any] | None:
    """The Namespace, if mlapp creates it."""
    if not isinstance(namespace, Namespace) or not namespace.create:
        return None
    own_labels = {MANAGED_BY: "mlapp"}
    if namespace.pod_security:
        own_labels["pod-security.kubernetes.io/enforce"] = namespace.pod_security
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": own_labels}}
