"""`targets.seldon` of mlapp.yaml. docs/reference/seldon-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from mlapp.config import Section
from mlapp.deploy.cluster.settings import DNS_LABEL, Canary, Namespace, Patch, Quantity, Rollout


class SeldonSettings(Section, frozen=True):
    """`targets.seldon`: where and how the app runs on Seldon Core 2."""

    kubeconfig: Annotated[
        str | None,
        Meta(description="kubeconfig file; KUBECONFIG, ~/.kube/config or the pod's own account when absent."),
    ] = None
    context: Annotated[str | None, Meta(description="Context of the kubeconfig; its current one when absent.")] = None
    namespace: Annotated[
        Annotated[str, Meta(pattern=DNS_LABEL)] | Namespace | None,
        Meta(description="Namespace, or a mapping of name, create and pod_security; the context's when absent."),
    ] = None
    storage_uri: Annotated[
        str | None,
        Meta(
            description="Where the folder of `mlapp export mlserver` is: s3, gs or https. `{version}` stands for the "
            "version. Required."
        ),
    ] = None
    storage_secret: Annotated[str | None, Meta(description="Secret with the bucket's rclone configuration.")] = None
    server: Annotated[
        str | None, Meta(description="Existing Server that runs the model; Seldon chooses one when absent.")
    ] = None
    server_image: Annotated[
        str | None,
        Meta(
            description="Image with MLServer and the export's requirements.txt. If set, mlapp creates a Server for "
            "the app."
        ),
    ] = None
    server_config: Annotated[str, Meta(description="ServerConfig of the created Server.")] = "mlserver"
    min_replicas: Annotated[int, Meta(ge=1, description="Minimum number of replicas of the model.")] = 1
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum number of replicas; `min_replicas` when absent.")
    ] = None
    memory: Annotated[Quantity | None, Meta(description="Memory that the model needs, by which Seldon places it.")] = (
        None
    )
    labels: Annotated[dict[str, str], Meta(description="Labels of every object.")] = {}
    annotations: Annotated[dict[str, str], Meta(description="Annotations of every object.")] = {}
    rollout: Rollout = msgspec.field(default_factory=Rollout)
    canary: Canary = msgspec.field(default_factory=Canary)
    patches: Annotated[list[Patch], Meta(description="Changes to the rendered objects, in order.")] = []

    @property
    def namespace_name(self) -> str | None:
        """The namespace's name; None for the context's."""
        return self.namespace.name if isinstance(self.namespace, Namespace) else self.namespace
