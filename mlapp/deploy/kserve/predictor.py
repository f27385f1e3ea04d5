"""The predictor of an InferenceService: mlapp's container, or a `model` that KServe fetches for a ServingRuntime.

The image contains its model, so by default the predictor is mlapp's container, and KServe adds nothing to its pods.
With a model in a bucket, the predictor is a `model` with a ServingRuntime of the image, and KServe's storage
initializer puts the files in /mnt/models. Without `storageUri`, KServe would treat a `model` as multi-model serving.
"""

from __future__ import annotations

import json
import math
from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.naming import make_label_value, make_short_digest
from mlapp.deploy.cluster.object_kinds import CONFIG_MAP, SERVING_RUNTIME
from mlapp.deploy.cluster.server_container import (
    compute_server_stop_seconds,
    make_server_container_secrets,
    make_server_container_security,
    make_server_probes,
    make_server_stop_hook,
)
from mlapp.deploy.cluster.server_environment import make_server_variables
from mlapp.deploy.kserve.render_context import SECTION, KServeContext
from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.errors import ConfigError

CONTAINER = "kserve-container"
"""The container name by which KServe identifies the server in a pod."""
MODEL_FORMAT = "mlapp"
MODELS = "/mnt/models"
"""Folder in which KServe's storage initializer puts the files."""
MANIFEST_FOLDER = "/etc/mlapp"
MANIFEST = "version.json"
DEFAULT_CPU_LIMIT = 1.0
"""KServe's default limit (`inferenceService.resource.cpuLimit` of its ConfigMap)."""
CPU_TARGET = 70
"""Target of the Standard mode's autoscaler, in percent of the requested CPU."""


def make_predictor_model_objects(context: KServeContext) -> list[dict[str, Any]]:
    """Additional objects for a model in a bucket: the version's manifest, and the runtime that serves it."""
    if context.storage_uri is None:
        return []
    objects = [make_serving_runtime(context)]
    return [make_predictor_manifest(context), *objects] if context.shipment.manifest else objects


def make_predictor(context: KServeContext) -> dict[str, Any]:
    """The predictor without its scaling: mlapp's container, or a model that KServe fetches."""
    settings = context.settings
    pod: dict[str, Any] = {
        "automountServiceAccountToken": False,
        # Otherwise a Service named mlapp would add MLAPP_… variables to the pod, which are read as settings.
        "enableServiceLinks": False,
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
    }
    if not context.is_knative:  # Knative sets these fields itself and rejects them here
        pod["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        pod["terminationGracePeriodSeconds"] = compute_server_stop_seconds(
            settings.rollout, context.serve, context.grace
        )
    pod = {key: value for key, value in pod.items() if value not in (None, [], {})}
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": str(settings.resources.tmp)}}]
    if context.storage_uri is None:
        pod["containers"] = [make_predictor_container(context)]
    else:
        pod["model"] = {
            "modelFormat": {"name": MODEL_FORMAT},
            "runtime": make_serving_runtime(context)["metadata"]["name"],
            "storageUri": context.storage_uri,
        }
        if context.shipment.manifest:
            name = make_predictor_manifest(context)["metadata"]["name"]
            volumes.append({"name": "version", "configMap": {"name": name, "defaultMode": 0o444}})
    pod["volumes"] = volumes
    pod_labels = {labels.INSTANCE: context.instance}
    if context.shipment.model_version:
        pod_labels[labels.VERSION] = make_label_value(context.shipment.model_version)
    pod_labels[labels.REVISION] = make_short_digest(json.dumps({**pod, **_list_pod_metadata(context)}, sort_keys=True))
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
        "kubectl.kubernetes.io/default-container": CONTAINER,
    }
    return {"labels": pod_labels, "annotations": annotations, **pod}


def _list_pod_metadata(context: KServeContext) -> dict[str, Any]:
    """The inputs of the metadata that KServe copies to the pods, apart from the track's own labels.

    A change of this metadata starts new pods, so the revision must change, too.
    """
    shipment, settings = context.shipment, context.settings
    return {
        "app": shipment.app,
        "own labels": {**settings.labels, **shipment.labels},
        "own annotations": settings.annotations,
        "version": shipment.model_version,
        "code": shipment.code_revision,
        "autoscaler": settings.scaler,
    }


def make_predictor_scaling(settings: KServeSettings, min_replicas: int | None = None) -> dict[str, Any]:
    """The number of pods, and the concurrency and timeout of each."""
    minimum = settings.min_replicas if min_replicas is None else min_replicas
    maximum = max(settings.replica_limit, minimum)
    scaling: dict[str, Any] = {"minReplicas": minimum, "maxReplicas": minimum if settings.scaler == "none" else maximum}
    if settings.mode == "standard" and settings.scaler == "hpa":
        scaling.update(scaleMetric="cpu", scaleTarget=CPU_TARGET)
    elif settings.scaler == "keda":
        target = {"type": "Utilization", "averageUtilization": CPU_TARGET}
        scaling["autoScaling"] = {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}
    if settings.mode == "standard":  # KServe's default first stops a quarter of the pods
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        scaling["deploymentStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    if settings.timeout is not None:
        scaling["timeout"] = settings.timeout
    if settings.concurrency is not None:
        scaling["containerConcurrency"] = settings.concurrency
    return scaling


def make_predictor_container(context: KServeContext) -> dict[str, Any]:
    """The server's container, compliant with Pod Security `restricted`."""
    settings, serve = context.settings, context.serve
    if context.storage_uri is None:
        _refuse_kserve_predictor_limit(settings)
    ports: list[dict[str, Any]] = [{"containerPort": PORT}]
    if serve.grpc_port and not context.is_knative:  # Knative allows only one port
        ports = [
            {"name": "http", "containerPort": PORT, "protocol": "TCP"},
            {"name": "grpc", "containerPort": serve.grpc_port, "protocol": "TCP"},
        ]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": context.shipment.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": ports,
        "env": make_predictor_environment(context),
        "resources": make_predictor_resources(settings),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  inside the container
        **make_server_probes(serve, settings.rollout.startup, PORT),
        "securityContext": {**make_server_container_security(), "seccompProfile": {"type": "RuntimeDefault"}},
    }
    if not context.is_knative:
        container.update(make_server_stop_hook(settings.rollout))
    return container


def make_predictor_environment(context: KServeContext) -> list[dict[str, Any]]:
    """The server's variables, in the pod spec itself because the webhooks of KServe and Knative read no ConfigMap."""
    settings = context.settings
    extra = {}
    if context.storage_uri is not None:
        extra["MLAPP_MODEL_FOLDER"] = MODELS
        if context.shipment.manifest:
            extra["MLAPP_MODEL_MANIFEST"] = f"{MANIFEST_FOLDER}/{MANIFEST}"
    values = make_server_variables(
        context.serve,
        settings.env,
        settings.secrets,
        section=SECTION,
        grace=0.0 if context.is_knative else context.grace,
        more=extra,
    )
    values.setdefault("OMP_NUM_THREADS", str(math.ceil(_count_predictor_cores(settings.resources.cpu))))
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
    return [*variables, *make_server_container_secrets(settings.secrets)]


def make_predictor_resources(settings: KServeSettings) -> dict[str, dict[str, str]]:
    """Requests and limits of the server's container."""
    sizes = settings.resources
    requests = {"cpu": str(sizes.cpu), "memory": str(sizes.memory)}
    limits = {"memory": str(sizes.memory if sizes.memory_limit is None else sizes.memory_limit)}
    if sizes.cpu_limit is not None:
        limits["cpu"] = str(sizes.cpu_limit)
    if settings.gpus:
        limits["nvidia.com/gpu"] = requests["nvidia.com/gpu"] = str(settings.gpus)
    requests.update({name: str(amount) for name, amount in sizes.requests.items()})
    limits.update({name: str(amount) for name, amount in sizes.limits.items()})
    return {"requests": requests, "limits": limits}


def _refuse_kserve_predictor_limit(settings: KServeSettings) -> None:
    """Check the CPU request against the limit that KServe's webhook adds if none is set.

    Raises:
        ConfigError: the request is above that limit, so KServe could create no pod.
    """
    resources = make_predictor_resources(settings)
    cpu_request = resources["requests"]["cpu"]
    if "cpu" not in resources["limits"] and _count_predictor_cores(cpu_request) > DEFAULT_CPU_LIMIT:
        raise ConfigError(
            f"{SECTION}.resources: no CPU limit is set, so KServe adds its own of {DEFAULT_CPU_LIMIT:g} CPU, which is "
            f"less than the request of {cpu_request}.",
            f"Set {SECTION}.resources.cpu_limit to at least {cpu_request}.",
        )


def make_serving_runtime(context: KServeContext) -> dict[str, Any]:
    """A ServingRuntime of the image, named by its content, so that releases with the same content share it."""
    container = make_predictor_container(context)
    if context.shipment.manifest:
        container["volumeMounts"] = [
            *container["volumeMounts"],
            {"name": "version", "mountPath": MANIFEST_FOLDER, "readOnly": True},
        ]
    spec: dict[str, Any] = {
        "supportedModelFormats": [{"name": MODEL_FORMAT, "version": "1", "autoSelect": False}],
        "protocolVersions": ["v1", "v2"],
        "multiModel": False,
        "containers": [_escape_predictor_placeholders(container)],
    }
    name = f"{context.names.base}-{make_short_digest(json.dumps(spec, sort_keys=True))}"
    return context.make_document(SERVING_RUNTIME, name, spec=spec)


def _escape_predictor_placeholders(value: Any) -> Any:
    """A container without placeholders: KServe executes the containers of a ServingRuntime as Go templates."""
    if isinstance(value, dict):
        return {key: _escape_predictor_placeholders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape_predictor_placeholders(item) for item in value]
    return value.replace("{{", "{{`{{`}}") if isinstance(value, str) else value


def make_predictor_manifest(context: KServeContext) -> dict[str, Any]:
    """A ConfigMap with the version's manifest, which the server uses to verify every model file."""
    data = {MANIFEST: context.shipment.manifest or ""}
    name = f"{context.names.base}-version-{make_short_digest(data[MANIFEST])}"
    return context.make_document(CONFIG_MAP, name, immutable=True, data=data)


def _count_predictor_cores(quantity: str | float) -> float:
    text = str(quantity)
    return max(1.0, float(text[:-1]) / 1000 if text.endswith("m") else float(text))
