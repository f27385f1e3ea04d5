"""The HorizontalPodAutoscaler, and the PodDisruptionBudget that keeps pods running while nodes are drained."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster.object_kinds import AUTOSCALER, BUDGET
from mlapp.deploy.k8s.render_context import RenderContext


def make_autoscaler(context: RenderContext) -> dict[str, Any] | None:
    """The HorizontalPodAutoscaler, if the app scales by load."""
    settings = context.settings.autoscaling
    if settings is None:
        return None
    metrics = [
        {
            "type": "Resource",
            "resource": {"name": name, "target": {"type": "Utilization", "averageUtilization": percent}},
        }
        for name, percent in (("cpu", settings.cpu), ("memory", settings.memory))
        if percent is not None
    ]
    return context.make_document(
        AUTOSCALER,
        context.names.base,
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": context.names.base},
            "minReplicas": settings.min,
            "maxReplicas": settings.max,
            "metrics": [*metrics, *settings.metrics],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": settings.scale_down_after}},
        },
    )


def make_disruption_budget(context: RenderContext) -> dict[str, Any] | None:
    """The PodDisruptionBudget, for two replicas or more: with one, it would block every drain."""
    scaling = context.settings.autoscaling
    if (scaling.min if scaling else context.settings.replicas) < 2:
        return None
    return context.make_document(
        BUDGET,
        context.names.base,
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": context.selector},
        },
    )
