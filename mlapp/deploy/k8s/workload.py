"""The Deployment: one serving container that complies with Pod Security `restricted`."""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.naming import make_label_value
from mlapp.deploy.cluster.object_kinds import DEPLOYMENT
from mlapp.deploy.cluster.server_container import (
    compute_server_stop_seconds,
    make_server_container_secrets,
    make_server_container_security,
    make_server_probes,
    make_server_stop_hook,
)
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.settings import ModelPull
from mlapp.deploy.k8s.storage import list_claimed_volumes, list_volume_mounts, make_model_volume

GRPC_PORT_NAME = "grpc"
TMP = "/tmp"  # noqa: S108  inside the container


def make_deployment(context: RenderContext, config_name: str, replicas: int | None) -> dict[str, Any]:
    """The Deployment. If `replicas` is None, `spec.replicas` is absent because an autoscaler owns it."""
    settings = context.settings
    spec: dict[str, Any] = {
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": settings.rollout.timeout,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": context.selector},
        "template": {
            "metadata": _make_workload_pod_metadata(context),
            "spec": _make_workload_pod(context, config_name),
        },
    }
    if replicas is not None:
        spec = {"replicas": replicas, **spec}
    document = context.make_document(DEPLOYMENT, context.instance, spec=spec)
    document["metadata"]["labels"].update(_make_workload_version_label(context))
    if context.shipment.code_revision:
        document["metadata"].setdefault("annotations", {})[labels.CODE] = context.shipment.code_revision
    return document


def _make_workload_version_label(context: RenderContext) -> dict[str, str]:
    """The label of the model version. Only the workload has it, so that a new version changes no other object."""
    version = context.shipment.model_version
    return {labels.VERSION: make_label_value(version)} if version else {}


def _make_workload_pod_metadata(context: RenderContext) -> dict[str, Any]:
    metadata: dict[str, Any] = {"labels": {**context.labels, **_make_workload_version_label(context)}}
    annotations = {"kubectl.kubernetes.io/default-container": labels.CONTAINER, **context.settings.pod_annotations}
    if not context.settings.monitoring.service_monitor:
        annotations = {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(PORT),
            "prometheus.io/path": "/metrics",
            **({"prometheus.io/scheme": "https"} if context.serve.tls_cert else {}),
            **annotations,
        }
    metadata["annotations"] = annotations
    return metadata


def _make_workload_pod(context: RenderContext, config_name: str) -> dict[str, Any]:
    settings, serve = context.settings, context.serve
    pod: dict[str, Any] = {
        "serviceAccountName": settings.service_account.name or context.names.base,
        "automountServiceAccountToken": settings.service_account.token,
        # Otherwise a Service named mlapp would add MLAPP_… variables to the pod, which are read as settings.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": compute_server_stop_seconds(settings.rollout, serve, context.grace),
        "securityContext": make_workload_pod_security(context),
        "containers": [_make_workload_container(context, config_name)],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": str(settings.resources.tmp)}},
            *list_claimed_volumes(context),
        ],
        "topologySpreadConstraints": _make_workload_spread_constraints(context),
    }
    if settings.model_pull is not None:
        pod["initContainers"] = [_make_workload_model_puller(context, settings.model_pull)]
        pod["volumes"].append(make_model_volume(settings.model_pull))
    optional = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "affinity": settings.affinity,
        "priorityClassName": settings.priority_class,
        "runtimeClassName": settings.runtime_class,
    }
    return {**pod, **{key: value for key, value in optional.items() if value}}


def _make_workload_container(context: RenderContext, config_name: str) -> dict[str, Any]:
    settings, serve = context.settings, context.serve
    ports = [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]
    if serve.grpc_port:
        ports.append({"name": GRPC_PORT_NAME, "containerPort": serve.grpc_port, "protocol": "TCP"})
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": TMP}, *list_volume_mounts(context)]
    if settings.model_pull is not None:
        mounts.append({"name": "model", "mountPath": context.model_folder, "readOnly": True})
    return {
        "name": labels.CONTAINER,
        "image": context.shipment.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": ports,
        "envFrom": make_workload_environment_sources(context, config_name),
        "env": make_workload_environment(context),
        "resources": _make_workload_resources(context),
        "volumeMounts": mounts,
        **make_server_probes(serve, settings.rollout.startup, "http"),
        "securityContext": make_server_container_security(),
        **make_server_stop_hook(settings.rollout),
    }


def _make_workload_model_puller(context: RenderContext, pull: ModelPull) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "model",
        "image": pull.image,
        "command": list(pull.command),
        "env": [{"name": "HOME", "value": TMP}],
        "resources": _make_workload_resources(context, gpu=False),
        "volumeMounts": [{"name": "tmp", "mountPath": TMP}, {"name": "model", "mountPath": context.model_folder}],
        "securityContext": make_server_container_security(),
    }
    if pull.secret:
        container["envFrom"] = [{"secretRef": {"name": pull.secret}}]
    return container


def make_workload_environment_sources(context: RenderContext, config_name: str) -> list[dict[str, Any]]:
    sources: list[dict[str, Any]] = [{"configMapRef": {"name": config_name}}]
    if context.settings.external_secret:
        sources.append({"secretRef": {"name": context.names.base}})
    return sources


def make_workload_environment(context: RenderContext) -> list[dict[str, Any]]:
    threads = {"resourceFieldRef": {"containerName": labels.CONTAINER, "resource": "requests.cpu", "divisor": "1"}}
    variables: list[dict[str, Any]] = []
    if "OMP_NUM_THREADS" not in context.settings.env:
        variables.append({"name": "OMP_NUM_THREADS", "valueFrom": threads})
    return [*variables, *make_server_container_secrets(context.settings.secrets)]


def _make_workload_resources(context: RenderContext, gpu: bool = True) -> dict[str, dict[str, str]]:
    resources = context.settings.resources
    requests = {"cpu": str(resources.cpu), "memory": str(resources.memory)}
    limits = {"memory": str(resources.memory if resources.memory_limit is None else resources.memory_limit)}
    if resources.cpu_limit is not None:
        limits = {"cpu": str(resources.cpu_limit), **limits}
    if resources.gpu and gpu:
        limits[resources.gpu_resource] = requests[resources.gpu_resource] = str(resources.gpu)
    return {"requests": requests, "limits": limits}


def make_workload_pod_security(context: RenderContext) -> dict[str, Any]:
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    user = context.settings.user
    if user is not None:
        security.update(runAsUser=user, runAsGroup=user)
    if context.settings.volumes:
        # A new volume belongs to root; fsGroup makes it writable for the pod. Without the policy, each start of a pod
        # changes the owner of all files.
        security.update(fsGroup=65532 if user is None else user, fsGroupChangePolicy="OnRootMismatch")
    return security


def _make_workload_spread_constraints(context: RenderContext) -> list[dict[str, Any]]:
    if context.settings.topology_spread is not None:
        return context.settings.topology_spread
    return [
        {
            "topologyKey": key,
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": context.selector},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]
