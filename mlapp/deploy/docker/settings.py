"""`targets.docker:` of mlapp.yaml."""

from __future__ import annotations

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from mlapp.config import END, Section, Serve, describe_text

Size = Annotated[str, describe_text("^[0-9]+[bkmg]?" + END, "an integer, and optionally b, k, m or g", "512m", "2g")]


class DockerSettings(Section, frozen=True):
    """How the app runs on a Docker engine."""

    host: Annotated[str, Meta(description="Address to publish the port on; 0.0.0.0 for all.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Port on the host.")] = 8000
    cpu: Annotated[Annotated[float, Meta(gt=0)] | None, Meta(description="CPU limit, such as 1.5.")] = None
    memory: Annotated[
        Size | None,
        Meta(description="Memory limit, such as 512m or 2g."),
    ] = None
    tmp: Annotated[Size, Meta(description="Size of /tmp, the only writable folder.")] = "64m"
    processes: Annotated[int, Meta(ge=1, description="Limit of processes and threads.")] = 512
    restart: Annotated[
        Literal["no", "on-failure", "unless-stopped", "always"],
        Meta(description="Restart policy of the container."),
    ] = "unless-stopped"
    env: Annotated[
        dict[str, str],
        Meta(description="Environment variables. `${NAME}` is replaced with a variable of the deploying shell."),
    ] = {}
    ready_timeout: Annotated[float, Meta(gt=0, description="Seconds until the container must be ready.")] = 120.0
    keep: Annotated[int, Meta(ge=1, description="Releases to keep for `mlapp rollback`.")] = 5

    def public_url(self, serve: Serve) -> str:
        """The app's URL as seen from here: the engine can run on another machine."""
        engine = urlsplit(os.environ.get("DOCKER_HOST", "")).hostname
        host = self.host if self.host not in ("0.0.0.0", "") else engine or "127.0.0.1"  # noqa: S104
        return f"{'https' if serve.tls_cert else 'http'}://{host}:{self.port}"
