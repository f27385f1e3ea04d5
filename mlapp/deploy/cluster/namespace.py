"""The Namespace of an app, if mlapp creates it."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster.labels import MANAGED_BY
from mlapp.deploy.cluster.settings import Namespace


def make_namespace(wanted: str | Namespace | None) -> dict[str, Any] | None:
    """The Namespace, if mlapp creates it."""
    if not isinstance(wanted, Namespace) or not wanted.create:
        return None
    own = {MANAGED_BY: "mlapp"}
    if wanted.pod_security:
        own["pod-security.kubernetes.io/enforce"] = wanted.pod_security
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wanted.name, "labels": own}}
