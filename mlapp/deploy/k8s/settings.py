"""`targets.k8s` of mlapp.yaml: every setting of the Kubernetes target, with its description.

docs/reference/kubernetes-settings.md lists them, and `mlapp eject schema` writes them as a JSON Schema for editors.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlapp.config import END, Section, describe_text
from mlapp.deploy.cluster.settings import DnsLabel, Quantity, ServerSection

AbsolutePath = Annotated[str, describe_text("^/", "a path that begins with /", "/data")]
Percent = Annotated[int, Meta(ge=1, le=100)]


class Resources(Section, frozen=True):
    """`resources:` requests and limits of each pod."""

    cpu: Annotated[Quantity, Meta(description="CPU request. OMP_NUM_THREADS follows it, rounded up.")] = "500m"
    cpu_limit: Annotated[Quantity | None, Meta(description="CPU limit; null for none.")] = "1"
    memory: Annotated[Quantity, Meta(description="Memory request.")] = "1Gi"
    memory_limit: Annotated[Quantity | None, Meta(description="Memory limit. Defaults to the request.")] = None
    gpu: Annotated[int, Meta(ge=0, description="GPUs of each pod.")] = 0
    gpu_resource: Annotated[str, Meta(description="Resource name of a GPU, from the device plugin.")] = "nvidia.com/gpu"
    tmp: Annotated[Quantity, Meta(description="Size of /tmp, the only writable folder.")] = "256Mi"


class Autoscaling(Section, frozen=True):
    """`autoscaling:` a HorizontalPodAutoscaler. It then owns the number of replicas."""

    min: Annotated[int, Meta(ge=1, description="Minimum replicas.")] = 2
    max: Annotated[int, Meta(ge=1, description="Maximum replicas.")] = 10
    cpu: Annotated[Percent | None, Meta(description="Target CPU use, in percent of the request.")] = 70
    memory: Annotated[Percent | None, Meta(description="Target memory use, in percent of the request.")] = None
    metrics: Annotated[list[dict[str, Any]], Meta(description="Additional metrics, in autoscaling/v2 form.")] = []
    scale_down_after: Annotated[int, Meta(ge=0, le=3600, description="Seconds of low load before scaling down.")] = 300


class Service(Section, frozen=True):
    """`service:` the address inside the cluster."""

    type: Annotated[Literal["ClusterIP", "NodePort", "LoadBalancer"], Meta(description="Type of the Service.")] = (
        "ClusterIP"
    )
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the Service.")] = 80
    annotations: Annotated[dict[str, str], Meta(description="Annotations, for a cloud's load balancer.")] = {}


class Ingress(Section, frozen=True):
    """`ingress:` an external address through an Ingress controller."""

    host: Annotated[str, Meta(description="Host name.")]
    path: Annotated[
        AbsolutePath, Meta(description="Path prefix. The server has none, so the controller must strip it.")
    ] = "/"
    class_name: Annotated[str | None, Meta(description="IngressClass. Defaults to the cluster's default.")] = None
    tls_secret: Annotated[str | None, Meta(description="Secret of the certificate. Defaults to plain HTTP.")] = None
    annotations: Annotated[dict[str, str], Meta(description="Annotations, for the controller.")] = {}


class Gateway(Section, frozen=True):
    """`gateway:` an external address through the Gateway API. Canaries then split traffic exactly."""

    name: Annotated[str, Meta(description="The Gateway to attach to.")]
    namespace: Annotated[str | None, Meta(description="Namespace of the Gateway. Defaults to the app's.")] = None
    section: Annotated[str | None, Meta(description="Listener of the Gateway. Defaults to every allowed one.")] = None
    hosts: Annotated[list[str], Meta(description="Host names; the listener's when empty.")] = []
    path: Annotated[AbsolutePath, Meta(description="Path prefix; the route strips it.")] = "/"
    tls: Annotated[
        bool | None,
        Meta(description="Whether the listener uses HTTPS, for the printed URL. Default: unless `section` is `http`."),
    ] = None


class Egress(Section, frozen=True):
    """One entry of `network_policy.egress`: either `cidr` or `namespace`."""

    cidr: Annotated[str | None, Meta(description="Addresses outside the cluster, such as 10.1.0.0/16.")] = None
    namespace: Annotated[
        DnsLabel | None,
        Meta(description="Namespace of the pods, for a database or collector in this cluster."),
    ] = None
    ports: Annotated[list[int], Meta(description="TCP ports; all when empty.")] = []


class Dns(Section, frozen=True):
    """`network_policy.dns:` the DNS servers. The defaults fit CoreDNS in most clusters."""

    namespace: Annotated[DnsLabel, Meta(description="Namespace of the DNS pods; openshift-dns on OpenShift.")] = (
        "kube-system"
    )
    labels: Annotated[
        dict[str, str],
        Meta(description="Labels of the DNS pods; dns.operator.openshift.io/daemonset-dns: default on OpenShift."),
    ] = msgspec.field(default_factory=lambda: {"k8s-app": "kube-dns"})
    cidrs: Annotated[
        list[str],
        Meta(
            description="DNS addresses outside pods: 169.254.20.10/32 (NodeLocal DNSCache), 169.254.169.254/32 (GKE)."
        ),
    ] = []
    ports: Annotated[list[int], Meta(description="UDP and TCP ports; 5353 on OpenShift.")] = msgspec.field(
        default_factory=lambda: [53]
    )


class NetworkPolicy(Section, frozen=True):
    """`network_policy:` allowed connections to and from the pods.

    DNS and the object stores of the model and of monitoring are allowed.
    """

    enabled: Annotated[bool, Meta(description="Whether to create a NetworkPolicy.")] = True
    allow_from: Annotated[
        list[DnsLabel],
        Meta(
            description="Namespaces allowed to call the pods, with those of Prometheus and of the ingress or gateway; "
            "all pods and addresses when empty."
        ),
    ] = []
    dns: Dns = msgspec.field(default_factory=Dns)
    egress: Annotated[list[Egress], Meta(description="Other destinations of the app: a database, a collector.")] = []


class Monitoring(Section, frozen=True):
    """`monitoring:` scraping of /metrics by Prometheus."""

    service_monitor: Annotated[bool, Meta(description="Create a ServiceMonitor (Prometheus operator).")] = False
    interval: Annotated[
        str,
        describe_text(
            r"^[0-9]+(ms|s|m)" + END, "an integer, and ms, s or m", "30s", "1m", description="Time between scrapes."
        ),
    ] = "30s"
    labels: Annotated[
        dict[str, str], Meta(description="Labels of the ServiceMonitor, for the operator's selector.")
    ] = {}


class ExternalSecret(Section, frozen=True):
    """`external_secret:` environment variables from the External Secrets operator."""

    store: Annotated[str, Meta(description="Name of the SecretStore.")]
    data: Annotated[dict[str, str], Meta(min_length=1, description="Variable: remote key, or `key#property`.")]
    store_kind: Annotated[Literal["SecretStore", "ClusterSecretStore"], Meta(description="Kind of the store.")] = (
        "SecretStore"
    )
    refresh: Annotated[str, Meta(description="Time between refreshes, such as 1h.")] = "1h"


class Volume(Section, frozen=True):
    """One entry of `volumes`: a PersistentVolumeClaim, mounted into each pod. Never removed by mlapp."""

    path: Annotated[AbsolutePath, Meta(description="Mount path.")]
    claim: Annotated[str | None, Meta(description="Existing claim. By default, mlapp creates one.")] = None
    size: Annotated[Quantity, Meta(description="Size of the created claim.")] = "1Gi"
    storage_class: Annotated[str | None, Meta(description="StorageClass. Defaults to the cluster's default.")] = None
    access_mode: Annotated[
        Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"], Meta(description="Access mode.")
    ] = "ReadWriteMany"
    read_only: Annotated[bool, Meta(description="Mount it read-only.")] = False


class ModelPull(Section, frozen=True):
    """`model_pull:` an init container fetches the model store from an object store; it replaces the image's store."""

    image: Annotated[str, Meta(description="Image with the object store's tool, such as amazon/aws-cli@sha256:….")]
    command: Annotated[
        list[str],
        Meta(min_length=1, description="Command to fill /app/model: [aws, s3, sync, s3://models/digits, /app/model]."),
    ]
    secret: Annotated[str | None, Meta(description="Secret with the credentials as variables.")] = None
    size: Annotated[Quantity, Meta(description="Disk space for the model.")] = "2Gi"
    cidrs: Annotated[
        list[str], Meta(description="Addresses of the store, for the NetworkPolicy; all on this port when empty.")
    ] = []
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the store.")] = 443


class ServiceAccount(Section, frozen=True):
    """`service_account:` the identity of the pods."""

    name: Annotated[str | None, Meta(description="Existing ServiceAccount. By default, mlapp creates one.")] = None
    annotations: Annotated[dict[str, str], Meta(description="Annotations, for example for workload identity.")] = {}
    token: Annotated[bool, Meta(description="Whether to mount its token; serving needs none.")] = False


class KubernetesSettings(ServerSection, frozen=True):
    """`targets.k8s`: where and how the app runs on Kubernetes."""

    owner: Annotated[str | None, Meta(description="Owner of the app; the label mlapp/owner.")] = None
    pod_annotations: Annotated[
        dict[str, str], Meta(description="Annotations of the pods, for example for a mesh.")
    ] = {}
    replicas: Annotated[int, Meta(ge=0, description="Number of pods, without autoscaling.")] = 1
    autoscaling: Annotated[Autoscaling | None, Meta(description="Scale by load; `{}` uses the defaults.")] = None
    resources: Resources = msgspec.field(default_factory=Resources)
    service: Service = msgspec.field(default_factory=Service)
    ingress: Annotated[Ingress | None, Meta(description="An Ingress. None by default.")] = None
    gateway: Annotated[Gateway | None, Meta(description="An HTTPRoute. None by default.")] = None
    network_policy: NetworkPolicy = msgspec.field(default_factory=NetworkPolicy)
    monitoring: Monitoring = msgspec.field(default_factory=Monitoring)
    external_secret: Annotated[
        ExternalSecret | None, Meta(description="Environment variables from an external vault.")
    ] = None
    volumes: Annotated[dict[DnsLabel, Volume], Meta(description="Volumes of the pods, by name.")] = {}
    model_pull: Annotated[ModelPull | None, Meta(description="Fetch the model at start.")] = None
    service_account: ServiceAccount = msgspec.field(default_factory=ServiceAccount)
    user: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Numeric user and group of the container. Defaults to the image's."),
    ] = None
    node_selector: Annotated[dict[str, str], Meta(description="Required labels of nodes.")] = {}
    tolerations: Annotated[list[dict[str, Any]], Meta(description="Tolerations, in Kubernetes form.")] = []
    affinity: Annotated[dict[str, Any], Meta(description="Affinity, in Kubernetes form.")] = {}
    topology_spread: Annotated[
        list[dict[str, Any]] | None,
        Meta(description="Topology spread constraints, in Kubernetes form. Defaults to hosts and zones."),
    ] = None
    priority_class: Annotated[str | None, Meta(description="PriorityClass.")] = None
    runtime_class: Annotated[str | None, Meta(description="RuntimeClass, such as nvidia.")] = None
