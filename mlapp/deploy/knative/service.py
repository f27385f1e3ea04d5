"""The Service of a release: pure, deterministic, without requests.

Each release's revision is named by its content, and the traffic refers to revisions by name. Without names, all
traffic would go to the newest ready revision: after an aborted canary, to the canary.

By default, only fields that both Knative and Cloud Run accept are written. Sources: knative.dev/serving,
pkg/apis/serving/fieldmask.go; https://cloud.google.com/run/docs/reference/yaml/v1.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.naming import Names, make_label_value, make_short_digest
from mlapp.deploy.cluster.object_kinds import KNATIVE_SERVICE
from mlapp.deploy.cluster.patches import apply_patches
from mlapp.deploy.cluster.server_container import make_server_container_secrets, make_server_container_security
from mlapp.deploy.cluster.server_environment import make_server_variables
from mlapp.deploy.cluster.settings import PodResources, ServerRollout, refuse_reversed_replica_range
from mlapp.deploy.cluster.track_context import make_track_context_document
from mlapp.deploy.knative.settings import KnativeSettings
from mlapp.deploy.target import Shipment
from mlapp.errors import ConfigError

SECTION = "targets.knative"
IGNORED_SETTINGS = {
    "rollout.leave": ("Knative itself keeps a stopping pod until its requests end", "Remove it from mlapp.yaml."),
    "resources.tmp": ("only `pod_security: restricted` mounts a folder for /tmp", "Set pod_security, or remove tmp."),
    "resources.cpu": (
        "the limit, resources.cpu_limit, is also the request",
        "Set only cpu_limit, or `resources.requests: {cpu: …}` for a lower request.",
    ),
    "resources.memory": (
        "the limit, resources.memory_limit, is also the request",
        "Set only one of them, or `resources.requests: {memory: …}` for a lower request.",
    ),
}
"""By setting without effect: the reason, and the advice."""
PROBE_PERIOD = 2
"""Period of the startup probe in seconds. On Cloud Run, a probe's timeout must not exceed it."""


def render_knative_release(
    shipment: Shipment, settings: KnativeSettings, serve: Serve, *, live: str | None = None, percent: int = 100
) -> list[dict[str, Any]]:
    """The Service of a release.

    Args:
        live: the revision that keeps the rest of the traffic.
        percent: the traffic percentage of the release's own revision.

    Raises:
        ConfigError: settings contradict each other, or a patch does not fit.
    """
    _refuse_contradictory_knative_settings(settings)
    draft = _make_knative_service(shipment, settings, serve, "", live, percent)
    return [_make_knative_service(shipment, settings, serve, _digest_service_template(draft), live, percent)]


def _make_knative_service(
    shipment: Shipment, settings: KnativeSettings, serve: Serve, digest: str, live: str | None, percent: int
) -> dict[str, Any]:
    """The Service with the user's patches; `digest` ends the revision's name."""
    names = Names(shipment.app)
    spec = _make_revision(shipment, settings, serve)
    object_labels = labels.make_object_labels(names, names.base, None, {**settings.labels, **shipment.labels})
    if settings.platform == "cloud_run":
        object_labels = _convert_to_google_labels(object_labels)
    annotations = _make_service_scale_annotations(settings)
    pod_labels = {**object_labels, labels.REVISION: digest} if settings.platform == "knative" else object_labels
    if shipment.model_version:
        version_label = labels.VERSION if settings.platform == "knative" else "model-version"
        pod_labels = {**pod_labels, version_label: make_label_value(shipment.model_version)}
    name = f"{names.base}-{digest}"
    template: dict[str, Any] = {"metadata": {"name": name, "labels": pod_labels}, "spec": spec}
    if annotations:
        template["metadata"]["annotations"] = annotations
    traffic = [{"revisionName": name, "percent": percent}]
    if live is not None and live != name and percent < 100:
        traffic = [{"revisionName": live, "percent": 100 - percent}, *traffic]
    content = {"spec": {"template": template, "traffic": traffic}}
    document = make_track_context_document(settings, KNATIVE_SERVICE, names.base, object_labels, **content)
    return apply_patches([document], settings.patches, SECTION)[0]


def _digest_service_template(draft: dict[str, Any]) -> str:
    """A digest of everything in the revision's template: Knative refuses any change of it without a new name."""
    return make_short_digest(json.dumps(draft["spec"]["template"], sort_keys=True))


def find_knative_service_revision(documents: list[dict[str, Any]]) -> str:
    """The name of the revision that a release runs."""
    return str(documents[0]["spec"]["template"]["metadata"]["name"])


def _make_revision(shipment: Shipment, settings: KnativeSettings, serve: Serve) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": labels.CONTAINER,
        "image": shipment.image,
        "ports": [{"containerPort": PORT}],
        "env": _make_revision_environment(settings, serve),
        "resources": _make_revision_resources(settings),
        "startupProbe": {
            "httpGet": {"path": "/readyz", "port": PORT},
            "periodSeconds": PROBE_PERIOD,
            "timeoutSeconds": PROBE_PERIOD,
            "failureThreshold": max(1, math.ceil(settings.rollout.startup / PROBE_PERIOD)),
        },
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": PORT},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
    }
    spec: dict[str, Any] = {
        "containerConcurrency": settings.concurrency,
        "timeoutSeconds": settings.timeout,
        "serviceAccountName": settings.service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets] or None,
    }
    spec = {key: value for key, value in spec.items() if value is not None}
    if settings.pod_security == "restricted":
        container["securityContext"] = {
            **make_server_container_security(),
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108  inside the container
        spec["volumes"] = [{"name": "tmp", "emptyDir": {"sizeLimit": str(settings.resources.tmp)}}]
        spec["automountServiceAccountToken"] = False
    return {**spec, "containers": [container]}


def _make_revision_environment(settings: KnativeSettings, serve: Serve) -> list[dict[str, Any]]:
    values = make_server_variables(serve, settings.env, settings.secrets, section=SECTION)
    cpu = str(settings.resources.cpu_limit or settings.resources.cpu)
    cores = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    values.setdefault("OMP_NUM_THREADS", str(max(1, math.ceil(cores))))
    variables: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
    return [*variables, *make_server_container_secrets(settings.secrets)]


def _make_revision_resources(settings: KnativeSettings) -> dict[str, dict[str, str]]:
    """By default only limits: Kubernetes uses them as requests too, and Cloud Run supports nothing else."""
    resources = settings.resources
    limits = {
        "cpu": str(resources.cpu if resources.cpu_limit is None else resources.cpu_limit),
        "memory": str(resources.memory if resources.memory_limit is None else resources.memory_limit),
    }
    if settings.gpus:
        limits["nvidia.com/gpu"] = str(settings.gpus)
    limits.update({name: str(amount) for name, amount in resources.limits.items()})
    requests = {name: str(amount) for name, amount in resources.requests.items()}
    return {"limits": limits, **({"requests": requests} if requests else {})}


def _make_service_scale_annotations(settings: KnativeSettings) -> dict[str, str]:
    """The scaling annotations, in the spelling that both Knative and Cloud Run accept."""
    annotations = {"autoscaling.knative.dev/minScale": str(settings.min_replicas)} if settings.min_replicas else {}
    if settings.max_replicas is not None:
        annotations["autoscaling.knative.dev/maxScale"] = str(settings.max_replicas)
    return annotations


def _convert_to_google_labels(object_labels: dict[str, str]) -> dict[str, str]:
    """Labels in the form that Google Cloud accepts: lower-case letters, digits, `-` and `_`, without a domain."""
    return {
        re.sub(r"[^a-z0-9_-]+", "-", key.rpartition("/")[2].lower()): re.sub(r"[^a-z0-9_-]+", "-", value.lower())[:63]
        for key, value in object_labels.items()
    }


def _refuse_contradictory_knative_settings(settings: KnativeSettings) -> None:
    refuse_reversed_replica_range(SECTION, settings.min_replicas, settings.max_replicas)
    if settings.platform == "cloud_run" and settings.pod_security:
        raise ConfigError(
            "targets.knative: Cloud Run refuses the security context of `pod_security: restricted`.",
            "Remove `platform: cloud_run` or `pod_security`.",
        )
    resources, default = settings.resources, PodResources()
    flags = {
        "rollout.leave": settings.rollout.leave != ServerRollout().leave,
        "resources.tmp": resources.tmp != default.tmp and settings.pod_security is None,
        "resources.cpu": resources.cpu != default.cpu and resources.cpu_limit is not None,
        "resources.memory": resources.memory != default.memory and resources.memory_limit is not None,
    }
    for name, is_ignored in flags.items():
        if is_ignored:
            raise ConfigError(
                f"targets.knative.{name} has no effect: {IGNORED_SETTINGS[name][0]}.", IGNORED_SETTINGS[name][1]
            )
