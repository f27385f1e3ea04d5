"""Settings of every cluster target: location, rollout, limits of a canary, and patches."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlapp.config import END, CanaryLimits, Section, describe_text
from mlapp.errors import ConfigError

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?" + END
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?" + END

DnsLabel = Annotated[
    str,
    describe_text(
        DNS_LABEL,
        "1 to 63 lowercase letters, digits and '-'; the first and the last are a letter or a digit",
        "team-a",
        "models",
    ),
]
QuantityText = Annotated[
    str,
    describe_text(
        QUANTITY,
        "a number, and optionally a unit of Kubernetes: m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei",
        "500m",
        "1Gi",
    ),
]
Quantity = QuantityText | Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)]
Text = str | int | float | bool


class Namespace(Section, frozen=True):
    """`namespace:` as a mapping."""

    name: Annotated[DnsLabel, Meta(description="The namespace.")]
    create: Annotated[bool, Meta(description="Create the namespace if it is missing. It is never removed.")] = False
    pod_security: Annotated[
        Literal["restricted", "baseline", "privileged"] | None,
        Meta(description="Pod Security level of a created namespace; null leaves it to the cluster."),
    ] = "restricted"


class SecretVariable(Section, frozen=True):
    """One entry of `secrets`: an environment variable from an existing Secret."""

    secret: Annotated[str, Meta(description="The Secret's name.")]
    key: Annotated[str, Meta(description="Key in the Secret.")]


class PodResources(Section, frozen=True):
    """`resources:` requests and limits of each pod."""

    cpu: Annotated[Quantity, Meta(description="CPU request. OMP_NUM_THREADS follows it, rounded up.")] = "500m"
    cpu_limit: Annotated[Quantity | None, Meta(description="CPU limit; null for none.")] = "1"
    memory: Annotated[Quantity, Meta(description="Memory request.")] = "1Gi"
    memory_limit: Annotated[Quantity | None, Meta(description="Memory limit. Defaults to the request.")] = None
    tmp: Annotated[Quantity, Meta(description="Size of /tmp, the only writable folder.")] = "256Mi"
    requests: Annotated[
        dict[str, Quantity], Meta(description="Requests in Kubernetes form; they override the others.")
    ] = {}
    limits: Annotated[
        dict[str, Quantity], Meta(description="Limits in Kubernetes form; they override the others.")
    ] = {}


class Rollout(Section, frozen=True):
    """`rollout:` the condition for a complete release, and the number of kept releases."""

    timeout: Annotated[int, Meta(ge=5, description="Seconds until an incomplete rollout fails.")] = 300
    history: Annotated[int, Meta(ge=1, description="Releases to keep for `mlapp rollback`.")] = 10
    check: Annotated[bool, Meta(description="Request a prediction of the schema's example from each new pod.")] = True


class ServerRollout(Rollout, frozen=True):
    """`rollout:` when a release is complete, how many are kept, and how pods start and stop."""

    startup: Annotated[int, Meta(ge=1, description="Maximum seconds a pod takes to load its model.")] = 120
    leave: Annotated[
        int,
        Meta(
            ge=0,
            description="Seconds a stopping pod keeps serving until load balancers stop using it, "
            "and then the same time to close open connections (or `serve.grace`, if set).",
        ),
    ] = 5


class Canary(CanaryLimits, frozen=True):
    """`canary:` conditions for `--auto-promote`."""

    predictions: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Maximum distance between the distributions of its predictions and the live release's.",
        ),
    ] = 0.2


class Patch(Section, frozen=True):
    """One entry of `patches`: changes a field that has no setting. Either `merge` or `json`."""

    kind: Annotated[str, Meta(description="Kind of the objects to change, such as Deployment.")]
    name: Annotated[str | None, Meta(description="Name of the object. Defaults to all objects of the kind.")] = None
    merge: Annotated[
        dict[str, Any] | None, Meta(description="A strategic merge patch. Lists of named items merge by name.")
    ] = None
    json: Annotated[list[dict[str, Any]] | None, Meta(description="A JSON patch, RFC 6902.")] = None


class ClusterSection(Section, frozen=True):
    """The settings of every target in a cluster."""

    kubeconfig: Annotated[
        str | None,
        Meta(description="kubeconfig file. Defaults to KUBECONFIG, ~/.kube/config or the pod's service account."),
    ] = None
    context: Annotated[str | None, Meta(description="Context of the kubeconfig. Defaults to its current one.")] = None
    namespace: Annotated[
        DnsLabel | Namespace | None,
        Meta(description="Namespace, or a mapping of name, create and pod_security. Defaults to the context's."),
    ] = None
    labels: Annotated[dict[str, str], Meta(description="Labels of every object.")] = {}
    annotations: Annotated[dict[str, str], Meta(description="Annotations of every object.")] = {}
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    canary: Canary = msgspec.field(default_factory=Canary)
    patches: Annotated[list[Patch], Meta(description="Changes to the rendered objects, in order.")] = []

    @property
    def namespace_name(self) -> str | None:
        """The namespace's name; None for the namespace of the kubeconfig's context."""
        return self.namespace.name if isinstance(self.namespace, Namespace) else self.namespace


class ServerSection(ClusterSection, frozen=True):
    """The settings of targets whose pods run mlapp's server."""

    rollout: ServerRollout = msgspec.field(default_factory=ServerRollout)
    env: Annotated[dict[str, Text], Meta(description="Environment variables of the server.")] = {}
    secrets: Annotated[dict[str, SecretVariable], Meta(description="Environment variables from Secrets.")] = {}
    image_pull_secrets: Annotated[list[str], Meta(description="Secrets for the image's registry.")] = []


class ServingPodSection(ServerSection, frozen=True):
    """The settings of targets on platforms that create pods from the app's image, such as KServe and Knative."""

    concurrency: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Requests a pod handles at the same time (`containerConcurrency`); 0 for no limit."),
    ] = None
    gpus: Annotated[int, Meta(ge=0, description="GPUs of each pod (`nvidia.com/gpu`).")] = 0
    resources: PodResources = msgspec.field(default_factory=PodResources)


def refuse_reversed_replica_range(section: str, minimum: int, maximum: int | None) -> None:
    """Check `min_replicas` against `max_replicas`, which may be absent.

    Raises:
        ConfigError: the minimum is more than the maximum.
    """
    if maximum is not None and maximum < minimum:
        raise ConfigError(
            f"{section}: min_replicas {minimum} is more than max_replicas {maximum}.",
            "Raise max_replicas, or lower min_replicas.",
        )
