"""`targets.knative` of mlapp.yaml. docs/reference/knative-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from mlapp.deploy.cluster.settings import ServingPodSection


class KnativeSettings(ServingPodSection, frozen=True):
    """`targets.knative`: where and how the app runs on Knative or Cloud Run."""

    platform: Annotated[
        Literal["knative", "cloud_run"],
        Meta(description="`cloud_run` writes labels for Cloud Run; deploy the output of `--dry-run` there."),
    ] = "knative"
    min_replicas: Annotated[int, Meta(ge=0, description="Minimum number of pods; 0 stops idle pods.")] = 0
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum number of pods. Defaults to the platform's.")
    ] = None
    timeout: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum seconds of a request. Defaults to the platform's.")
    ] = None
    pod_security: Annotated[
        Literal["restricted"] | None,
        Meta(description="`restricted` adds the security context required by Pod Security; Cloud Run refuses it."),
    ] = None
    service_account: Annotated[str | None, Meta(description="Service account of the pods.")] = None
