"""`targets.kserve` of mlapp.yaml. docs/reference/kserve-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mlapp.config import Section
from mlapp.deploy.cluster.settings import (
    DNS_LABEL,
    Canary,
    Namespace,
    Patch,
    PodResources,
    Rollout,
    SecretVariable,
    Text,
)


class KServeSettings(Section, frozen=True):
    """`targets.kserve`: where and how the app runs on KServe."""

    kubeconfig: Annotated[
        str | None,
        Meta(description="kubeconfig file; KUBECONFIG, ~/.kube/config or the pod's own account when absent."),
    ] = None
    context: Annotated[str | None, Meta(description="Context of the kubeconfig; its current one when absent.")] = None
    namespace: Annotated[
        Annotated[str, Meta(pattern=DNS_LABEL)] | Namespace | None,
        Meta(description="Namespace, or a mapping of name, create and pod_security; the context's when absent."),
    ] = None
    mode: Annotated[
        Literal["standard", "knative"],
        Meta(description="KServe's deployment mode. It cannot change while the app is deployed."),
    ] = "standard"
    min_replicas: Annotated[
        int, Meta(ge=0, description="Minimum number of pods; 0 needs Knative mode, and stops idle pods.")
    ] = 1
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum number of pods; `min_replicas` when absent.")
    ] = None
    timeout: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Maximum seconds of a request; KServe's default when absent."),
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Requests that a pod handles at the same time (`containerConcurrency`); 0 for no limit."),
    ] = None
    autoscaler: Annotated[
        Literal["hpa", "keda", "knative", "none"] | None,
        Meta(
            description="What changes the number of pods. When absent: `knative` in Knative mode; otherwise `hpa` if "
            "`max_replicas` is more than `min_replicas`, and `none` if not."
        ),
    ] = None
    gpus: Annotated[int, Meta(ge=0, description="GPUs of each pod (`nvidia.com/gpu`).")] = 0
    resources: PodResources = msgspec.field(default_factory=PodResources)
    storage_uri: Annotated[
        str | None,
        Meta(
            description="Folder of the model version that KServe downloads: s3, gs, pvc, oci, https or hf. `{version}` "
            "stands for the version. When absent: the version in the model store, if that is in a bucket that KServe "
            "reads, and the image's own model otherwise."
        ),
    ] = None
    labels: Annotated[dict[str, str], Meta(description="Labels of every object.")] = {}
    annotations: Annotated[dict[str, str], Meta(description="Annotations of every object.")] = {}
    env: Annotated[dict[str, Text], Meta(description="Environment variables of the server.")] = {}
    secrets: Annotated[dict[str, SecretVariable], Meta(description="Environment variables from Secrets.")] = {}
    service_account: Annotated[
        str | None, Meta(description="ServiceAccount of the pods, for example with the bucket's credentials.")
    ] = None
    image_pull_secrets: Annotated[list[str], Meta(description="Secrets for the image's registry.")] = []
    node_selector: Annotated[dict[str, str], Meta(description="Labels that nodes must have.")] = {}
    tolerations: Annotated[list[dict[str, Any]], Meta(description="Tolerations, in Kubernetes form.")] = []
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    canary: Canary = msgspec.field(default_factory=Canary)
    patches: Annotated[list[Patch], Meta(description="Changes to the rendered objects, in order.")] = []

    @property
    def namespace_name(self) -> str | None:
        """The namespace's name; None for the context's."""
        return self.namespace.name if isinstance(self.namespace, Namespace) else self.namespace

    @property
    def most_replicas(self) -> int:
        """The maximum number of pods."""
        return max(self.max_replicas or self.min_replicas, 1)

    @property
    def scaler(self) -> Literal["hpa", "keda", "knative", "none"]:
        """The autoscaler of the pods."""
        if self.autoscaler is not None:
            return self.autoscaler
        if self.mode == "knative":
            return "knative"
        return "hpa" if self.most_replicas > self.min_replicas else "none"
