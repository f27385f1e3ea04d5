"""The kinds of object that mlapp creates, their API paths, and which of them it may prune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One kind of object with its API address. Every cluster has the `core` kinds; the others need an operator."""

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True
    core: bool = True

    @property
    def group(self) -> str:
        """API group, empty for the legacy one."""
        return self.api_version.rpartition("/")[0]

    @property
    def resource(self) -> str:
        """`deployments.apps`, as kubectl and RBAC messages write it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_path(self, namespace: str | None, name: str | None = None) -> str:
        """The URL path of the collection, or of the object `name`."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        namespace_part = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{namespace_part}/{self.plural}" + (f"/{name}" if name else "")


NAMESPACE = Kind("Namespace", "v1", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Kind("ServiceAccount", "v1", "serviceaccounts")
CONFIG_MAP = Kind("ConfigMap", "v1", "configmaps")
CLAIM = Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims")
SERVICE = Kind("Service", "v1", "services")
POD = Kind("Pod", "v1", "pods")
EVENT = Kind("Event", "v1", "events")
DEPLOYMENT = Kind("Deployment", "apps/v1", "deployments")
CRON_JOB = Kind("CronJob", "batch/v1", "cronjobs")
AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers")
BUDGET = Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets")
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies")
INGRESS = Kind("Ingress", "networking.k8s.io/v1", "ingresses")
LEASE = Kind("Lease", "coordination.k8s.io/v1", "leases")
ENDPOINT_SLICE = Kind("EndpointSlice", "discovery.k8s.io/v1", "endpointslices")
ROUTE = Kind("HTTPRoute", "gateway.networking.k8s.io/v1", "httproutes", core=False)
SERVICE_MONITOR = Kind("ServiceMonitor", "monitoring.coreos.com/v1", "servicemonitors", core=False)
EXTERNAL_SECRET = Kind("ExternalSecret", "external-secrets.io/v1", "externalsecrets", core=False)
INFERENCE_SERVICE = Kind("InferenceService", "serving.kserve.io/v1beta1", "inferenceservices", core=False)
SERVING_RUNTIME = Kind("ServingRuntime", "serving.kserve.io/v1alpha1", "servingruntimes", core=False)
KNATIVE_SERVICE = Kind("Service", "serving.knative.dev/v1", "services", core=False)
KNATIVE_REVISION = Kind("Revision", "serving.knative.dev/v1", "revisions", core=False)
SELDON_MODEL = Kind("Model", "mlops.seldon.io/v1alpha1", "models", core=False)
SELDON_SERVER = Kind("Server", "mlops.seldon.io/v1alpha1", "servers", core=False)
SELDON_EXPERIMENT = Kind("Experiment", "mlops.seldon.io/v1alpha1", "experiments", core=False)

RENDERED = (
    NAMESPACE,
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    CLAIM,
    EXTERNAL_SECRET,
    NETWORK_POLICY,
    SERVICE,
    DEPLOYMENT,
    CRON_JOB,
    BUDGET,
    AUTOSCALER,
    INGRESS,
    ROUTE,
    SERVICE_MONITOR,
)
"""All kinds that can be rendered, in the order in which they are applied."""

PRUNED = (
    SERVICE_MONITOR,
    ROUTE,
    INGRESS,
    AUTOSCALER,
    BUDGET,
    CRON_JOB,
    DEPLOYMENT,
    SERVICE,
    NETWORK_POLICY,
    CONFIG_MAP,
    EXTERNAL_SECRET,
    SERVICE_ACCOUNT,
)
"""The only kinds that mlapp removes, in this order. It never removes Namespaces, volume claims and Secrets."""

OPERATORS = {
    ROUTE.kind: "the Gateway API",
    SERVICE_MONITOR.kind: "the Prometheus operator",
    EXTERNAL_SECRET.kind: "the External Secrets operator",
    INFERENCE_SERVICE.kind: "KServe",
    SERVING_RUNTIME.kind: "KServe",
    KNATIVE_REVISION.kind: "Knative Serving",
    SELDON_MODEL.kind: "Seldon Core 2",
    SELDON_SERVER.kind: "Seldon Core 2",
    SELDON_EXPERIMENT.kind: "Seldon Core 2",
}

_BY_NAME = {
    (kind.group, kind.kind): kind
    for kind in (
        *RENDERED,
        POD,
        EVENT,
        LEASE,
        ENDPOINT_SLICE,
        INFERENCE_SERVICE,
        SERVING_RUNTIME,
        KNATIVE_SERVICE,
        SELDON_MODEL,
        SELDON_SERVER,
        SELDON_EXPERIMENT,
    )
}


def find_object_kind(document: dict[str, Any]) -> Kind:
    """The kind of a rendered or recorded document."""
    return _BY_NAME[document.get("apiVersion", "").rpartition("/")[0], document["kind"]]


def object_title(document: dict[str, Any]) -> str:
    """`Deployment/digits`, as messages name an object."""
    return f"{document['kind']}/{document['metadata']['name']}"
