"""`targets.k8s` of mlapp.yaml: every setting of the Kubernetes target, with what it means.

docs/kubernetes.md lists them, and `mlapp eject schema` writes them as a JSON Schema for editors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlapp.config import Section

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"

Quantity = Annotated[str, Meta(pattern=QUANTITY)] | Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
Text = str | int | float | bool
Percent = Annotated[int, Meta(ge=1, le=100)]


class Namespace(Section, frozen=True):
    """`namespace:` when it is more than a name."""

    name: Annotated[str, Meta(pattern=DNS_LABEL, description="The namespace.")]
    create: Annotated[bool, Meta(description="Make it when it is missing. It is never removed again.")] = False
    pod_security: Annotated[
        Literal["restricted", "baseline", "privileged"] | None,
        Meta(description="Pod Security level that a namespace of ours enforces; null leaves it to the cluster."),
    ] = "restricted"


class Resources(Section, frozen=True):
    """`resources:` what each pod gets."""

    cpu: Annotated[Quantity, Meta(description="CPU request. OMP_NUM_THREADS follows it, rounded up.")] = "500m"
    cpu_limit: Annotated[Quantity | None, Meta(description="CPU limit; null for none.")] = "1"
    memory: Annotated[Quantity, Meta(description="Memory request.")] = "512Mi"
    memory_limit: Annotated[Quantity | None, Meta(description="Memory limit; the request when absent.")] = None
    gpu: Annotated[int, Meta(ge=0, description="GPUs of each pod.")] = 0
    gpu_resource: Annotated[str, Meta(description="Name that the device plugin gives to a GPU.")] = "nvidia.com/gpu"
    tmp: Annotated[Quantity, Meta(description="Size of /tmp, the one place that can be written to.")] = "256Mi"


class Autoscaling(Section, frozen=True):
    """`autoscaling:` a HorizontalPodAutoscaler, which then owns the number of replicas."""

    min: Annotated[int, Meta(ge=1, description="Least replicas.")] = 2
    max: Annotated[int, Meta(ge=1, description="Most replicas.")] = 10
    cpu: Annotated[Percent | None, Meta(description="Percent of the CPU request to aim at.")] = 70
    memory: Annotated[Percent | None, Meta(description="Percent of the memory request to aim at.")] = None
    metrics: Annotated[list[dict[str, Any]], Meta(description="Further metrics, as autoscaling/v2 spells them.")] = []
    scale_down_after: Annotated[int, Meta(ge=0, le=3600, description="Seconds of low load before replicas go.")] = 300


class Service(Section, frozen=True):
    """`service:` the address inside the cluster."""

    type: Annotated[Literal["ClusterIP", "NodePort", "LoadBalancer"], Meta(description="Type of the Service.")] = (
        "ClusterIP"
    )
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the Service.")] = 80
    annotations: Annotated[dict[str, str], Meta(description="Annotations, for a cloud's load balancer.")] = {}


class Ingress(Section, frozen=True):
    """`ingress:` an address outside, by an Ingress controller."""

    host: Annotated[str, Meta(description="Host name.")]
    path: Annotated[
        str, Meta(pattern="^/", description="Path prefix; the server knows none, so let the controller strip it.")
    ] = "/"
    class_name: Annotated[str | None, Meta(description="IngressClass; the cluster's default when absent.")] = None
    tls_secret: Annotated[str | None, Meta(description="Secret of the certificate; plain HTTP when absent.")] = None
    annotations: Annotated[dict[str, str], Meta(description="Annotations, for the controller.")] = {}


class Gateway(Section, frozen=True):
    """`gateway:` an address outside, by the Gateway API. Canaries then split traffic exactly."""

    name: Annotated[str, Meta(description="The Gateway to attach to.")]
    namespace: Annotated[str | None, Meta(description="Its namespace; the app's when absent.")] = None
    section: Annotated[str | None, Meta(description="Its listener; all that allow it when absent.")] = None
    hosts: Annotated[list[str], Meta(description="Host names; the listener's when empty.")] = []
    path: Annotated[str, Meta(pattern="^/", description="Path prefix; the route strips it.")] = "/"
    tls: Annotated[
        bool | None,
        Meta(description="Whether the listener speaks HTTPS, for the URL that is printed; unless `section` is `http`."),
    ] = None


class Egress(Section, frozen=True):
    """One entry of `network_policy.egress`: either `cidr` or `namespace`."""

    cidr: Annotated[str | None, Meta(description="Addresses outside the cluster, as 10.1.0.0/16.")] = None
    namespace: Annotated[
        Annotated[str, Meta(pattern=DNS_LABEL)] | None,
        Meta(description="The pods of a namespace: a database or a collector in this cluster."),
    ] = None
    ports: Annotated[list[int], Meta(description="TCP ports; all when empty.")] = []


class Dns(Section, frozen=True):
    """`network_policy.dns:` the pods that answer for names. The defaults are those of CoreDNS in most clusters."""

    namespace: Annotated[str, Meta(pattern=DNS_LABEL, description="Their namespace; openshift-dns on OpenShift.")] = (
        "kube-system"
    )
    labels: Annotated[
        dict[str, str],
        Meta(description="Their labels; dns.operator.openshift.io/daemonset-dns: default on OpenShift."),
    ] = msgspec.field(default_factory=lambda: {"k8s-app": "kube-dns"})
    cidrs: Annotated[
        list[str],
        Meta(
            description="Addresses outside the pods: 169.254.20.10/32 of NodeLocal DNSCache, 169.254.169.254/32 of GKE."
        ),
    ] = []
    ports: Annotated[list[int], Meta(description="Their ports, UDP and TCP; 5353 on OpenShift.")] = msgspec.field(
        default_factory=lambda: [53]
    )


class NetworkPolicy(Section, frozen=True):
    """`network_policy:` who may talk to the pods, and to whom they may: DNS, the model's object store, `egress`."""

    enabled: Annotated[bool, Meta(description="Whether to make one.")] = True
    allow_from: Annotated[
        list[Annotated[str, Meta(pattern=DNS_LABEL)]],
        Meta(description="Namespaces that may call; every pod and address may when empty."),
    ] = []
    dns: Dns = msgspec.field(default_factory=Dns)
    egress: Annotated[list[Egress], Meta(description="What else the user's code needs: a database, a collector.")] = []


class Monitoring(Section, frozen=True):
    """`monitoring:` how Prometheus finds /metrics."""

    service_monitor: Annotated[bool, Meta(description="Make a ServiceMonitor (Prometheus operator).")] = False
    interval: Annotated[str, Meta(pattern=r"^[0-9]+(ms|s|m)$", description="Time between scrapes.")] = "30s"
    labels: Annotated[dict[str, str], Meta(description="Labels by which the operator selects ServiceMonitors.")] = {}


class SecretVariable(Section, frozen=True):
    """One entry of `secrets`: an environment variable from a Secret that exists."""

    secret: Annotated[str, Meta(description="The Secret's name.")]
    key: Annotated[str, Meta(description="Its key.")]


class ExternalSecret(Section, frozen=True):
    """`external_secret:` environment variables that the External Secrets operator brings."""

    store: Annotated[str, Meta(description="Name of the SecretStore.")]
    data: Annotated[dict[str, str], Meta(min_length=1, description="Variable: remote key, or `key#property`.")]
    store_kind: Annotated[Literal["SecretStore", "ClusterSecretStore"], Meta(description="Its kind.")] = "SecretStore"
    refresh: Annotated[str, Meta(description="Time between refreshes, as 1h.")] = "1h"


class Volume(Section, frozen=True):
    """One entry of `volumes`: a PersistentVolumeClaim, mounted into each pod. Never removed by mlapp."""

    path: Annotated[str, Meta(pattern="^/", description="Where it is mounted.")]
    claim: Annotated[str | None, Meta(description="A claim that exists; one is made when absent.")] = None
    size: Annotated[Quantity, Meta(description="Size of the claim that is made.")] = "1Gi"
    storage_class: Annotated[str | None, Meta(description="StorageClass; the cluster's default when absent.")] = None
    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"], Meta(description="Access mode.")
    ] = "ReadWriteMany"
    read_only: Annotated[bool, Meta(description="Mount it read-only.")] = False


class ModelPull(Section, frozen=True):
    """`model_pull:` an init container fetches the model store from an object store, in place of the image's own."""

    image: Annotated[str, Meta(description="Image with the object store's own tool, as amazon/aws-cli@sha256:….")]
    command: Annotated[
        list[str],
        Meta(min_length=1, description="Fills /app/model, as [aws, s3, sync, s3://models/digits, /app/model]."),
    ]
    secret: Annotated[str | None, Meta(description="Secret whose keys are its credentials, as variables.")] = None
    size: Annotated[Quantity, Meta(description="Room for the model on the node's disk.")] = "2Gi"
    cidrs: Annotated[
        list[str], Meta(description="Addresses of the store, for the NetworkPolicy; any on that port when empty.")
    ] = []
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the store.")] = 443


class ServiceAccount(Section, frozen=True):
    """`service_account:` the identity of the pods."""

    name: Annotated[str | None, Meta(description="One that exists; one of the app's own is made when absent.")] = None
    annotations: Annotated[dict[str, str], Meta(description="Annotations, as for a cloud's workload identity.")] = {}
    token: Annotated[bool, Meta(description="Whether pods get its token; serving needs none.")] = False


class Rollout(Section, frozen=True):
    """`rollout:` how a new release comes in, and how the old pods leave."""

    timeout: Annotated[int, Meta(ge=5, description="Seconds until a rollout that does not get there has failed.")] = 300
    startup: Annotated[int, Meta(ge=1, description="Seconds that a pod may take to load its model.")] = 120
    leave: Annotated[
        int,
        Meta(
            ge=0,
            description="Seconds that a stopping pod serves on while load balancers forget it, "
            "and again as many in which it lets go of open connections (`serve.grace`, where that is set).",
        ),
    ] = 5
    history: Annotated[int, Meta(ge=1, description="Releases to keep for `mlapp rollback`.")] = 10
    check: Annotated[bool, Meta(description="Ask each new pod for a prediction of the schema's example.")] = True


class Canary(Section, frozen=True):
    """`canary:` what a canary must hold to be promoted by `--auto-promote`."""

    requests: Annotated[int, Meta(ge=1, description="Least requests that it must have answered.")] = 20
    error_rate: Annotated[
        float, Meta(ge=0, le=1, description="Most errors, as a share of its requests, above the live release's.")
    ] = 0.01
    latency_ratio: Annotated[
        float, Meta(gt=0, description="Most mean latency, as a multiple of the live release's.")
    ] = 1.5


class Patch(Section, frozen=True):
    """One entry of `patches`: changes a field that has no setting. Either `merge` or `json`."""

    kind: Annotated[str, Meta(description="Kind of the objects to change, as Deployment.")]
    name: Annotated[str | None, Meta(description="Name of the object; all of that kind when absent.")] = None
    merge: Annotated[
        dict[str, Any] | None, Meta(description="A strategic merge patch: lists of named things merge by name.")
    ] = None
    json: Annotated[list[dict[str, Any]] | None, Meta(description="A JSON patch, RFC 6902.")] = None


class KubernetesSettings(Section, frozen=True):
    """`targets.k8s`: where and how the app runs on Kubernetes."""

    kubeconfig: Annotated[
        str | None,
        Meta(description="kubeconfig file; KUBECONFIG, ~/.kube/config or the pod's own account when absent."),
    ] = None
    context: Annotated[str | None, Meta(description="Context of the kubeconfig; its current one when absent.")] = None
    namespace: Annotated[
        Annotated[str, Meta(pattern=DNS_LABEL)] | Namespace | None,
        Meta(description="Namespace, or name, create and pod_security; the context's when absent."),
    ] = None
    owner: Annotated[str | None, Meta(description="Who answers for it; becomes the label mlapp/owner.")] = None
    labels: Annotated[dict[str, str], Meta(description="Labels of every object.")] = {}
    annotations: Annotated[dict[str, str], Meta(description="Annotations of every object.")] = {}
    pod_annotations: Annotated[dict[str, str], Meta(description="Annotations of the pods, as for a mesh.")] = {}
    replicas: Annotated[int, Meta(ge=0, description="Pods, where nothing scales them.")] = 1
    autoscaling: Annotated[Autoscaling | None, Meta(description="Scale by load; `{}` takes the defaults.")] = None
    resources: Resources = msgspec.field(default_factory=Resources)
    service: Service = msgspec.field(default_factory=Service)
    ingress: Annotated[Ingress | None, Meta(description="An Ingress; none when absent.")] = None
    gateway: Annotated[Gateway | None, Meta(description="An HTTPRoute; none when absent.")] = None
    network_policy: NetworkPolicy = msgspec.field(default_factory=NetworkPolicy)
    monitoring: Monitoring = msgspec.field(default_factory=Monitoring)
    env: Annotated[dict[str, Text], Meta(description="Environment variables, in a ConfigMap.")] = {}
    secrets: Annotated[dict[str, SecretVariable], Meta(description="Environment variables from Secrets.")] = {}
    external_secret: Annotated[ExternalSecret | None, Meta(description="Variables from an external vault.")] = None
    volumes: Annotated[
        dict[Annotated[str, Meta(pattern=DNS_LABEL)], Volume], Meta(description="Volumes of the pods, by name.")
    ] = {}
    model_pull: Annotated[ModelPull | None, Meta(description="Fetch the model at start.")] = None
    service_account: ServiceAccount = msgspec.field(default_factory=ServiceAccount)
    image_pull_secrets: Annotated[list[str], Meta(description="Secrets for the image's registry.")] = []
    user: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Numeric user and group of the container; the image's when absent."),
    ] = None
    node_selector: Annotated[dict[str, str], Meta(description="Labels that a node must have.")] = {}
    tolerations: Annotated[list[dict[str, Any]], Meta(description="Tolerations, as Kubernetes spells them.")] = []
    affinity: Annotated[dict[str, Any], Meta(description="Affinity, as Kubernetes spells it.")] = {}
    topology_spread: Annotated[
        list[dict[str, Any]] | None,
        Meta(description="Spread constraints, as Kubernetes spells them; over hosts and zones when absent."),
    ] = None
    priority_class: Annotated[str | None, Meta(description="PriorityClass.")] = None
    runtime_class: Annotated[str | None, Meta(description="RuntimeClass, as nvidia.")] = None
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    canary: Canary = msgspec.field(default_factory=Canary)
    patches: Annotated[list[Patch], Meta(description="Changes to what is rendered, in order.")] = []

    @property
    def namespace_name(self) -> str | None:
        """The namespace's name; None for the context's."""
        return self.namespace.name if isinstance(self.namespace, Namespace) else self.namespace
