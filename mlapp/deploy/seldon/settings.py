"""`targets.seldon` of mlapp.yaml. docs/reference/seldon-settings.md lists the settings."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from mlapp.deploy.cluster.settings import ClusterSection, Quantity


class SeldonSettings(ClusterSection, frozen=True):
    """`targets.seldon`: where and how the app runs on Seldon Core 2."""

    storage_uri: Annotated[
        str | None,
        Meta(
            description="URI of the folder of `mlapp export mlserver`: s3, gs or https. `{version}` stands for the "
            "version. Required."
        ),
    ] = None
    storage_secret: Annotated[str | None, Meta(description="Secret with the bucket's rclone configuration.")] = None
    server: Annotated[
        str | None, Meta(description="Existing Server for the model. By default, Seldon chooses one.")
    ] = None
    server_image: Annotated[
        str | None,
        Meta(
            description="Image with MLServer and the export's requirements.txt. If set, mlapp creates a Server for "
            "the app."
        ),
    ] = None
    server_config: Annotated[
        str | None, Meta(description="ServerConfig of the created Server. Defaults to `mlserver`.")
    ] = None
    min_replicas: Annotated[int, Meta(ge=1, description="Minimum number of replicas of the model.")] = 1
    max_replicas: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Maximum number of replicas. Defaults to `min_replicas`.")
    ] = None
    memory: Annotated[Quantity | None, Meta(description="Memory of the model; Seldon places it accordingly.")] = None
