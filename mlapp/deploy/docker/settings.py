"""`targets.docker:` of mlapp.yaml."""

from __future__ import annotations

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from mlapp.config import Section, Serve


class DockerSettings(Section, frozen=True):
    """How the app runs on a Docker engine."""

    host: Annotated[str, Meta(description="Address of the machine to publish the port at; 0.0.0.0 for all.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of the machine.")] = 8000
    cpu: Annotated[
        Annotated[float, Meta(gt=0)] | None, Meta(description="Processors that it may use at most, as 1.5.")
    ] = None
    memory: Annotated[
        Annotated[str, Meta(pattern="^[0-9]+[bkmg]?$")] | None,
        Meta(description="Memory that it may use at most, as 512m or 2g."),
    ] = None
    tmp: Annotated[str, Meta(pattern="^[0-9]+[bkmg]?$", description="Size of /tmp, the one place to write.")] = "64m"
    processes: Annotated[int, Meta(ge=1, description="Processes and threads that it may have at most.")] = 512
    restart: Annotated[
        Literal["no", "on-failure", "unless-stopped", "always"],
        Meta(description="When the engine starts it again by itself."),
    ] = "unless-stopped"
    env: Annotated[dict[str, str], Meta(description="Environment variables, over those of the image.")] = {}
    ready_timeout: Annotated[float, Meta(gt=0, description="Seconds until it must be ready.")] = 120.0
    keep: Annotated[int, Meta(ge=1, description="Releases that can be gone back to.")] = 5

    def public_url(self, serve: Serve) -> str:
        """Where the app answers, as seen from here: the engine may be another machine's."""
        engine = urlsplit(os.environ.get("DOCKER_HOST", "")).hostname
        host = self.host if self.host not in ("0.0.0.0", "") else engine or "127.0.0.1"  # noqa: S104
        return f"{'https' if serve.tls_cert else 'http'}://{host}:{self.port}"
