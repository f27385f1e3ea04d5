"""`targets.knative` of mlapp.yaml. docs/reference/knative-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated, Literal

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


class KnativeSettings(Section, frozen=True):
    """`targets.knative`: where and how the app runs on Knative or Cloud Run."""

    kubeconfig: Annotated[
        str | None,
        Meta(description="kubeconfig file; KUBECONFIG, ~/.kube/config or the pod's own account when absent."),
    ] = None
    context: Annotated[str | None, Meta(description="Context of the kubeconfig; its current one when absent.")] = None
    namespace: Annotated[
        Annotated[str, Meta(pattern=DNS_LABEL)] | Namespace | None,
        Meta(description="Namespace, or a mapping of name, create and pod_security; the context's when absent."),
    ] = None
    platform: Annotated[
        Literal["knative", "cloud_run"],
        Meta(description="`cloud_run` writes labels that Cloud Run takes; deploy the output of `--dry-run` there."),
    ] = "knative"
    min_replicas: Annotated[int, Meta(ge=0, description="Minimum number of pods; 0 stops idle pods.")] = 0
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum number of pods; the platform's when absent.")
    ] = None
    timeout: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum seconds of a request; the platform's when absent.")
    ] = None
    concurrency: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="Requests that a pod handles at the same time (`containerConcurrency`); 0 for no limit."),
    ] = None
    gpus: Annotated[int, Meta(ge=0, description="GPUs of each pod (`nvidia.com/gpu`).")] = 0
    resources: PodResources = msgspec.field(default_factory=PodResources)
    pod_security: Annotated[
        Literal["restricted"] | None,
        Meta(description="`restricted` adds the security context that Pod Security asks for; Cloud Run refuses it."),
    ] = None
    labels: Annotated[dict[str, str], Meta(description="Labels of every object.")] = {}
    annotations: Annotated[dict[str, str], Meta(description="Annotations of the Service.")] = {}
    env: Annotated[dict[str, Text], Meta(description="Environment variables of the server.")] = {}
    secrets: Annotated[dict[str, SecretVariable], Meta(description="Environment variables from Secrets.")] = {}
    service_account: Annotated[str | None, Meta(description="Service account of the pods.")] = None
    image_pull_secrets: Annotated[list[str], Meta(description="Secrets for the image's registry.")] = []
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    canary: Canary = msgspec.field(default_factory=Canary)
    patches: Annotated[list[Patch], Meta(description="Changes to the rendered objects, in order.")] = []

    @property
    def namespace_name(self) -> str | None:
        """The namespace's name; None for the context's."""
        return self.namespace.name if isinstance(self.namespace, Namespace) else self.namespace
