"""Checks, before any write, for changes that KServe's controller refuses in Standard mode only after the write.

Source: https://github.com/kserve/kserve/issues/5196, a change of the autoscaler.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.object_kinds import AUTOSCALER
from mlapp.deploy.target import DeployError


def refuse_second_autoscaler(cluster: Cluster, service: str) -> None:
    """Check that KServe's HorizontalPodAutoscaler is gone before KEDA scales the same pods.

    Raises:
        DeployError: it still exists.
    """
    name = f"{service}-predictor"
    autoscaler: dict[str, Any] | None = None
    with suppress(ApiError):  # no permission to read it
        autoscaler = cluster.get_object(AUTOSCALER, name)
    owners = (autoscaler or {}).get("metadata", {}).get("ownerReferences") or []
    if any(owner.get("kind") == "InferenceService" for owner in owners):
        raise DeployError(
            f"targets.kserve: KServe keeps the HorizontalPodAutoscaler {name} when the autoscaler changes to keda, "
            "and KEDA refuses a second one.",
            "Deploy once with `autoscaler: external`, which removes it; then use keda.",
        )
