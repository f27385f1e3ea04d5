"""`targets.kserve` of mlapp.yaml. docs/reference/kserve-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from mlapp.deploy.cluster.settings import ServingPodSection

IMAGE = "image"
"""`storage_uri` for the image's own model."""


class KServeSettings(ServingPodSection, frozen=True):
    """`targets.kserve`: where and how the app runs on KServe."""

    mode: Annotated[
        Literal["standard", "knative"],
        Meta(description="KServe's deployment mode. It cannot change while the app is deployed."),
    ] = "standard"
    min_replicas: Annotated[
        int, Meta(ge=0, description="Minimum number of pods; 0 needs Knative mode, and stops idle pods.")
    ] = 1
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum number of pods. Defaults to `min_replicas`.")
    ] = None
    timeout: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Maximum seconds of a request. Defaults to KServe's."),
    ] = None
    autoscaler: Annotated[
        Literal["hpa", "keda", "external", "knative", "none"] | None,
        Meta(
            description="Autoscaler of the pods. Default: `knative` in Knative mode; otherwise `hpa` if "
            "`max_replicas` is more than `min_replicas`, and `none` if not. `external` is your own autoscaler."
        ),
    ] = None
    storage_uri: Annotated[
        str | None,
        Meta(
            description="Folder of the model version, downloaded by KServe: s3, gs, pvc, oci, https or hf. `{version}` "
            "stands for the version. `image` serves the image's own model. Default: the version in the model "
            "store, if KServe reads its bucket, and the image's own model otherwise."
        ),
    ] = None
    service_account: Annotated[
        str | None, Meta(description="ServiceAccount of the pods, for example with the bucket's credentials.")
    ] = None
    node_selector: Annotated[dict[str, str], Meta(description="Required labels of nodes.")] = {}
    tolerations: Annotated[list[dict[str, Any]], Meta(description="Tolerations, in Kubernetes form.")] = []

    @property
    def replica_limit(self) -> int:
        """The maximum number of pods."""
        return max(self.max_replicas or self.min_replicas, 1)

    @property
    def scaler(self) -> Literal["hpa", "keda", "external", "knative", "none"]:
        """The autoscaler of the pods."""
        if self.autoscaler is not None:
            return self.autoscaler
        if self.mode == "knative":
            return "knative"
        return "hpa" if self.replica_limit > self.min_replicas else "none"
