"""The objects of monitoring: the ServiceMonitor, and the CronJob that closes windows.

The CronJob is a short run of `mlapp monitor run`, hardened like the server.
"""

from __future__ import annotations

from typing import Any

from mlapp.deploy.cluster import labels
from mlapp.deploy.cluster.object_kinds import CRON_JOB, SERVICE_MONITOR
from mlapp.deploy.cluster.server_container import make_server_container_security
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.storage import list_claimed_volumes, list_volume_mounts
from mlapp.deploy.k8s.workload import (
    TMP,
    make_workload_environment,
    make_workload_environment_sources,
    make_workload_pod_security,
)
from mlapp.images.image_spec import APP, VENV

DEADLINE = 1800
"""Seconds after which a run is canceled."""
TRAINING_DEADLINE = 6 * 3600
"""Seconds after which a run that can train a model is canceled."""


def make_service_monitor(context: RenderContext) -> dict[str, Any] | None:
    """The ServiceMonitor, if configured. It also selects the canary's Service."""
    settings = context.settings.monitoring
    if not settings.service_monitor:
        return None
    endpoint: dict[str, Any] = {"port": "http", "path": "/metrics", "interval": settings.interval}
    if context.serve.tls_cert:  # Prometheus scrapes the pod's IP, which the certificate does not cover
        endpoint.update(scheme="https", tlsConfig={"insecureSkipVerify": True})
    selector = {"matchLabels": {labels.APP: context.names.base}}
    document = context.make_document(
        SERVICE_MONITOR, context.names.base, spec={"selector": selector, "endpoints": [endpoint]}
    )
    document["metadata"]["labels"] = {**settings.labels, **document["metadata"]["labels"]}
    return document


def render_monitoring_job(context: RenderContext, config_name: str) -> dict[str, Any] | None:
    """The CronJob, if one closes the windows."""
    shipment, settings = context.shipment, context.settings
    if not context.has_monitoring_job:
        return None
    resources = settings.resources
    memory = str(resources.memory if resources.memory_limit is None else resources.memory_limit)
    container = {
        "name": labels.CONTAINER,
        "image": shipment.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [f"{VENV}/bin/python", "-m", "mlapp", "monitor", "run", "--bundle", APP],
        "envFrom": make_workload_environment_sources(context, config_name),
        "env": make_workload_environment(context),
        "resources": {
            "requests": {"cpu": str(resources.cpu), "memory": str(resources.memory)},
            "limits": {"memory": memory},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": TMP}, *list_volume_mounts(context)],
        "securityContext": make_server_container_security(),
    }
    pod: dict[str, Any] = {
        "serviceAccountName": settings.service_account.name or context.names.base,
        "automountServiceAccountToken": settings.service_account.token,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": make_workload_pod_security(context),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": str(resources.tmp)}}, *list_claimed_volumes(context)],
    }
    optional = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "priorityClassName": settings.priority_class,
        "runtimeClassName": settings.runtime_class,
    }
    pod.update({key: value for key, value in optional.items() if value})
    pod_labels = {**labels.make_monitor_selector_labels(context.names), labels.MANAGED_BY: "mlapp"}
    spec = {
        "schedule": shipment.monitor_schedule,
        # Alarms do not wait for a training; of several runs, one trains.
        "concurrencyPolicy": "Allow" if shipment.monitor_trains else "Forbid",
        "startingDeadlineSeconds": 300,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {
            "spec": {
                "backoffLimit": 1,
                "activeDeadlineSeconds": TRAINING_DEADLINE if shipment.monitor_trains else DEADLINE,
                "ttlSecondsAfterFinished": 86400,
                "template": {"metadata": {"labels": pod_labels}, "spec": pod},
            }
        },
    }
    return context.make_document(CRON_JOB, f"{context.names.base}-monitor", spec=spec)
