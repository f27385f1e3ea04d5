"""Render KServe's objects from a Shipment and the settings: pure, deterministic, without requests.

The image contains its model, so the predictor is by default our own container, and KServe adds nothing to its pods.
With a model in a bucket, the predictor is a `model` with a ServingRuntime of the image, and KServe's storage
initializer puts the files in /mnt/models. Without `storageUri`, KServe would treat a `model` as multi-model serving.

Source: https://github.com/kserve/kserve, pkg/apis/serving and pkg/controller/v1beta1, versions 0.17 to 0.20.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.naming import Names, make_label_value, short_digest
from mlapp.deploy.cluster.object_kinds import CONFIG_MAP, INFERENCE_SERVICE, ROUTE, SERVING_RUNTIME
from mlapp.deploy.cluster.patches import apply_patches
from mlapp.deploy.cluster.server_environment import server_variables
from mlapp.deploy.cluster.settings import Patch
from mlapp.deploy.cluster.storage_uri import fill_storage_uri
from mlapp.deploy.kserve.settings import KServeSettings
from mlapp.deploy.kserve.settings_check import is_readable, refuse_contradictions
from mlapp.deploy.target import Shipment

SECTION = "targets.kserve"
MODE = "serving.kserve.io/deploymentMode"
MODES = {"standard": "Standard", "knative": "Knative"}
AUTOSCALER = "serving.kserve.io/autoscalerClass"
VISIBILITY = "networking.kserve.io/visibility"
CONTAINER = "kserve-container"
"""The container name by which KServe identifies the server in a pod."""
MODEL_FORMAT = "mlapp"
MODELS = "/mnt/models"
"""Where KServe's storage initializer puts the files."""
MANIFEST_FOLDER = "/etc/mlapp"
MANIFEST = "version.json"
CPU_TARGET = 70
"""Target of the Standard mode's autoscaler, in percent of the requested CPU."""

SPARE = 5

Track = Literal["live", "canary"]


@dataclass(frozen=True)
class KServeContext:
    """One Shipment on one track, with the settings for rendering it."""

    shipment: Shipment
    settings: KServeSettings
    serve: Serve
    track: Track = "live"

    @property
    def names(self) -> Names:
        """Names of the objects."""
        return Names(self.shipment.app)

    @property
    def instance(self) -> str:
        """Name of this track's InferenceService."""
        return self.names.canary if self.track == "canary" else self.names.base

    @property
    def is_knative(self) -> bool:
        """Whether Knative runs the pods."""
        return self.settings.mode == "knative"

    @property
    def storage_uri(self) -> str | None:
        """Where KServe downloads the model version from; None if the image's own model is served."""
        shipment, given = self.shipment, self.settings.storage_uri
        if given is not None:
            return fill_storage_uri(given, shipment, SECTION)
        return shipment.model_uri if is_readable(shipment.model_uri) else None

    @property
    def labels(self) -> dict[str, str]:
        """Labels of this track's objects. KServe copies them to everything that it creates for an InferenceService."""
        own = {**self.settings.labels, **self.shipment.labels}
        return labels.object_labels(self.names, self.instance, None, own)

    def make_document(self, kind: str, api_version: str, name: str, **content: Any) -> dict[str, Any]:
        """A document with its metadata."""
        metadata: dict[str, Any] = {"name": name}
        if self.settings.namespace_name:
            metadata["namespace"] = self.settings.namespace_name
        metadata["labels"] = self.labels
        if self.settings.annotations:
            metadata["annotations"] = dict(self.settings.annotations)
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **content}


def render_release(shipment: Shipment, settings: KServeSettings, serve: Serve) -> list[dict[str, Any]]:
    """The documents of a release, in the order of application.

    Raises:
        ConfigError: settings contradict each other, or a patch does not fit.
    """
    context = KServeContext(shipment, settings, serve)
    refuse_contradictions(settings)
    made = [*make_model_objects(context), make_inference_service(context)]
    return apply_patches(made, settings.patches, SECTION)


def make_model_objects(context: KServeContext) -> list[dict[str, Any]]:
    """Additional objects for a model in a bucket: the version's manifest, and the runtime that serves it."""
    if context.storage_uri is None:
        return []
    made = [make_runtime(context)]
    return [make_manifest(context), *made] if context.shipment.manifest else made


def make_inference_service(context: KServeContext, *, min_replicas: int | None = None) -> dict[str, Any]:
    """The InferenceService of one track. It always sets the mode, as defaults of KServe's code and ConfigMap differ."""
    settings = context.settings
    document = context.make_document(INFERENCE_SERVICE.kind, INFERENCE_SERVICE.api_version, context.instance)
    annotations = document["metadata"].setdefault("annotations", {})
    annotations[MODE] = MODES[settings.mode]
    if settings.mode == "standard":
        annotations[AUTOSCALER] = settings.scaler
    elif settings.scaler == "hpa":
        annotations["autoscaling.knative.dev/class"] = "hpa.autoscaling.knative.dev"
        annotations["autoscaling.knative.dev/metric"] = "cpu"
    if context.shipment.code_revision:
        annotations[labels.CODE] = context.shipment.code_revision
    if context.track == "canary":  # reached through the app's own route, without its own host
        document["metadata"]["labels"][VISIBILITY] = "cluster-local"
    document["spec"] = {"predictor": {**make_predictor(context), **make_scaling(settings, min_replicas)}}
    return document


def make_predictor(context: KServeContext) -> dict[str, Any]:
    """The predictor without its scaling: our own container, or a model that KServe fetches."""
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
    if not context.is_knative:  # Knative sets its own and rejects these
        pod["securityContext"] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        pod["terminationGracePeriodSeconds"] = _stop_seconds(context)
    pod = {key: value for key, value in pod.items() if value not in (None, [], {})}
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": str(settings.resources.tmp)}}]
    if context.storage_uri is None:
        pod["containers"] = [make_container(context)]
    else:
        pod["model"] = {
            "modelFormat": {"name": MODEL_FORMAT},
            "runtime": make_runtime(context)["metadata"]["name"],
            "storageUri": context.storage_uri,
        }
        if context.shipment.manifest:
            name = make_manifest(context)["metadata"]["name"]
            volumes.append({"name": "version", "configMap": {"name": name, "defaultMode": 0o444}})
    pod["volumes"] = volumes
    own = {labels.INSTANCE: context.instance}
    if context.shipment.model_version:
        own[labels.VERSION] = make_label_value(context.shipment.model_version)
    own[labels.REVISION] = short_digest(json.dumps({**pod, "app": context.shipment.app}, sort_keys=True))
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORT),
        "prometheus.io/path": "/metrics",
        "kubectl.kubernetes.io/default-container": CONTAINER,
    }
    return {"labels": own, "annotations": annotations, **pod}


def make_scaling(settings: KServeSettings, min_replicas: int | None = None) -> dict[str, Any]:
    """The number of pods, and the concurrency and timeout of each."""
    least = settings.min_replicas if min_replicas is None else min_replicas
    most = max(settings.most_replicas, least)
    scaling: dict[str, Any] = {"minReplicas": least, "maxReplicas": least if settings.scaler == "none" else most}
    if settings.mode == "standard" and settings.scaler == "hpa":
        scaling.update(scaleMetric="cpu", scaleTarget=CPU_TARGET)
    elif settings.scaler == "keda":
        target = {"type": "Utilization", "averageUtilization": CPU_TARGET}
        scaling["autoScaling"] = {"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}
    if settings.mode == "standard":  # KServe's own default stops a quarter of the pods first
        rolling = {"maxUnavailable": 0, "maxSurge": 1}
        scaling["deploymentStrategy"] = {"type": "RollingUpdate", "rollingUpdate": rolling}
    if settings.timeout is not None:
        scaling["timeout"] = settings.timeout
    if settings.concurrency is not None:
        scaling["containerConcurrency"] = settings.concurrency
    return scaling


def make_container(context: KServeContext) -> dict[str, Any]:
    """The server's container, compliant with Pod Security `restricted`."""
    settings, serve = context.settings, context.serve
    scheme = {"scheme": "HTTPS"} if serve.tls_cert else {}
    live = {"path": "/livez", "port": PORT, **scheme}
    ready = {"path": "/readyz", "port": PORT, **scheme}
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
        "env": make_environment(context),
        "resources": make_resources(settings),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  inside the container
        "startupProbe": {
            "httpGet": live,
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": settings.rollout.startup,
        },
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"httpGet": live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if settings.rollout.leave and not context.is_knative:
        # The pod is removed from the endpoints while it sleeps and still serves; SIGTERM follows.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": settings.rollout.leave}}}
    return container


def make_environment(context: KServeContext) -> list[dict[str, Any]]:
    """The server's variables, in the pod spec itself: the webhooks of KServe and Knative read no ConfigMap of ours."""
    settings = context.settings
    more = {}
    if context.storage_uri is not None:
        more["MLAPP_MODEL_FOLDER"] = MODELS
        if context.shipment.manifest:
            more["MLAPP_MODEL_MANIFEST"] = f"{MANIFEST_FOLDER}/{MANIFEST}"
    told = server_variables(
        context.serve,
        settings.env,
        settings.secrets,
        section=SECTION,
        place="in the InferenceService",
        grace=0.0 if context.is_knative else _compute_stop_grace(context),
        more=more,
    )
    told.setdefault("OMP_NUM_THREADS", str(math.ceil(_count_cores(settings.resources.cpu))))
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in told.items()]
    for name, source in sorted(settings.secrets.items()):
        reference = {"secretKeyRef": {"name": source.secret, "key": source.key}}
        variables.append({"name": name, "valueFrom": reference})
    return variables


def make_resources(settings: KServeSettings) -> dict[str, dict[str, str]]:
    """Requests and limits of the server's container."""
    wanted = settings.resources
    requests = {"cpu": str(wanted.cpu), "memory": str(wanted.memory)}
    limits = {"memory": str(wanted.memory if wanted.memory_limit is None else wanted.memory_limit)}
    if wanted.cpu_limit is not None:
        limits["cpu"] = str(wanted.cpu_limit)
    if settings.gpus:
        limits["nvidia.com/gpu"] = requests["nvidia.com/gpu"] = str(settings.gpus)
    requests.update({name: str(amount) for name, amount in wanted.requests.items()})
    limits.update({name: str(amount) for name, amount in wanted.limits.items()})
    return {"requests": requests, "limits": limits}


def make_runtime(context: KServeContext) -> dict[str, Any]:
    """A ServingRuntime of the image, named by its content, so that releases with the same content share it."""
    container = make_container(context)
    if context.shipment.manifest:
        container["volumeMounts"] = [
            *container["volumeMounts"],
            {"name": "version", "mountPath": MANIFEST_FOLDER, "readOnly": True},
        ]
    spec: dict[str, Any] = {
        "supportedModelFormats": [{"name": MODEL_FORMAT, "version": "1", "autoSelect": False}],
        "protocolVersions": ["v1", "v2"],
        "multiModel": False,
        "containers": [container],
    }
    name = f"{context.names.base}-{short_digest(json.dumps(spec, sort_keys=True))}"
    return context.make_document(SERVING_RUNTIME.kind, SERVING_RUNTIME.api_version, name, spec=spec)


def make_manifest(context: KServeContext) -> dict[str, Any]:
    """The version's manifest, with which the server verifies every model file."""
    data = {MANIFEST: context.shipment.manifest or ""}
    name = f"{context.names.base}-version-{short_digest(data[MANIFEST])}"
    return context.make_document(CONFIG_MAP.kind, CONFIG_MAP.api_version, name, immutable=True, data=data)


def select_patches(patches: list[Patch], names: Names, documents: list[dict[str, Any]]) -> list[Patch]:
    """The patches that match one of these documents; patches of the live InferenceService also apply to a canary's."""
    import msgspec

    there = {(document["kind"], document["metadata"]["name"]) for document in documents}
    kinds = {kind for kind, _ in there}
    fitting = []
    for patch in patches:
        if patch.name == names.base and (patch.kind, names.canary) in there:
            fitting.append(msgspec.structs.replace(patch, name=names.canary))
        elif (patch.kind, patch.name) in there or (patch.name is None and patch.kind in kinds):
            fitting.append(patch)
    return fitting


def make_route(
    context: KServeContext, percent: int, parents: list[dict[str, Any]], hosts: list[str], canary_service: str
) -> dict[str, Any]:
    """The HTTPRoute that splits the traffic of the app's host by weight, beside KServe's own route of that host.

    KServe's route matches the regular expression `^/.*$`. Gateways differ in whether prefixes or regular expressions
    take precedence, but prefer longer ones. This route has one match of each type, so it wins in both cases.
    """
    backends = [
        {"name": f"{context.names.base}-predictor", "port": 80, "weight": 100 - percent},
        {"name": canary_service, "port": 80, "weight": percent},
    ]
    matches = [
        {"path": {"type": "RegularExpression", "value": "^(/.*)$"}},
        {"path": {"type": "PathPrefix", "value": "/"}},
    ]
    spec: dict[str, Any] = {"parentRefs": parents, "rules": [{"matches": matches, "backendRefs": backends}]}
    if hosts:
        spec["hostnames"] = hosts
    name = f"{context.names.base}-split"
    return context.make_document(ROUTE.kind, ROUTE.api_version, name, spec=spec)


def _compute_stop_grace(context: KServeContext) -> float:
    """Seconds after SIGTERM during which the server still answers."""
    return context.serve.grace or float(context.settings.rollout.leave)


def _stop_seconds(context: KServeContext) -> int:
    leaving = context.settings.rollout.leave + math.ceil(_compute_stop_grace(context)) + math.ceil(context.serve.drain)
    return leaving + SPARE


def _count_cores(quantity: str | float) -> float:
    text = str(quantity)
    return max(1.0, float(text[:-1]) / 1000 if text.endswith("m") else float(text))
