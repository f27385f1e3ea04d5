"""Render documents from a Shipment and the settings: pure, deterministic, without requests."""

from __future__ import annotations

import json
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.namespace import make_namespace
from mlapp.deploy.cluster.naming import make_short_digest
from mlapp.deploy.cluster.object_kinds import RENDERED
from mlapp.deploy.cluster.patches import apply_patches, select_canary_patches
from mlapp.deploy.k8s import autoscaling, config_objects, monitoring, networking, storage, workload
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.deploy.target import Shipment
from mlapp.errors import ConfigError

ORDER = {kind.kind: position for position, kind in enumerate(RENDERED)}


def render_kubernetes_release(shipment: Shipment, settings: KubernetesSettings, serve: Serve) -> list[dict[str, Any]]:
    """The documents of a release, in the order of application.

    Raises:
        ConfigError: settings contradict each other, or a patch does not fit.
    """
    context = RenderContext(shipment, settings, serve)
    _refuse_contradictory_settings(context)
    config = config_objects.make_config_map(context)
    replicas = None if settings.autoscaling else settings.replicas
    candidates = [
        make_namespace(settings.namespace),
        config_objects.make_service_account(context),
        config,
        *storage.make_volume_claims(context),
        config_objects.make_external_secret(context),
        *networking.make_network_policies(context),
        networking.make_service(context),
        workload.make_deployment(context, config["metadata"]["name"], replicas),
        monitoring.render_monitoring_job(context, config["metadata"]["name"]),
        autoscaling.make_disruption_budget(context),
        autoscaling.make_autoscaler(context),
        networking.make_ingress(context),
        networking.make_k8s_network_route(context),
        monitoring.make_service_monitor(context),
    ]
    return _finish_rendered_documents([document for document in candidates if document is not None], settings)


def render_kubernetes_canary(
    shipment: Shipment, settings: KubernetesSettings, serve: Serve, replicas: int, percent: int
) -> list[dict[str, Any]]:
    """The documents of a canary beside the live release: its Deployment and ConfigMap, and those that split traffic.

    With an HTTPRoute, traffic is split by weight and the canary has its own Service; otherwise the app's Service
    selects the pods of both, and `replicas` determines the split.
    """
    live_context, canary_context = (
        RenderContext(shipment, settings, serve),
        RenderContext(shipment, settings, serve, track="canary"),
    )
    config = config_objects.make_config_map(live_context)
    candidates: list[dict[str, Any] | None] = [
        config,
        *storage.make_volume_claims(live_context),
        workload.make_deployment(canary_context, config["metadata"]["name"], replicas),
    ]
    if settings.gateway is not None:
        candidates += [
            networking.make_service(canary_context),
            networking.make_k8s_network_route(live_context, percent),
        ]
    else:
        candidates.append(networking.make_service(live_context, both_tracks=True))
    documents = [document for document in candidates if document is not None]
    return _finish_rendered_documents(
        documents, settings, select_canary_patches(settings.patches, live_context.names, documents)
    )


def _finish_rendered_documents(
    documents: list[dict[str, Any]], settings: KubernetesSettings, patches: Any = None
) -> list[dict[str, Any]]:
    documents = apply_patches(documents, settings.patches if patches is None else patches)
    for document in documents:
        if document["kind"] == "Deployment":
            _label_rendered_revision(document)
    return sorted(documents, key=lambda document: ORDER[document["kind"]])


def _label_rendered_revision(deployment: dict[str, Any]) -> None:
    """Label the pods with a hash of their template, which distinguishes the releases' pods."""
    template = deployment["spec"]["template"]
    template["metadata"]["labels"] = {
        **template["metadata"]["labels"],
        labels.REVISION: make_short_digest(json.dumps(template, sort_keys=True)),
    }


def _refuse_contradictory_settings(context: RenderContext) -> None:
    settings = context.settings
    scaling = settings.autoscaling
    if scaling and scaling.min > scaling.max:
        raise ConfigError(
            f"targets.k8s.autoscaling: min {scaling.min} is more than max {scaling.max}.", "Set max to at least min."
        )
    if scaling and not (scaling.cpu or scaling.memory or scaling.metrics):
        raise ConfigError("targets.k8s.autoscaling has no metric to scale by.", "Set cpu, memory or metrics.")
    for index, entry in enumerate(settings.network_policy.egress):
        if (entry.cidr is None) == (entry.namespace is None):
            raise ConfigError(
                f"targets.k8s.network_policy.egress[{index}] needs one of `cidr` and `namespace`.",
                "Give it exactly one. The address of a Service does not work: policies see the addresses of its pods.",
            )
