"""The app as a compose file: what `docker compose up` needs to run one release as this target runs it."""

from __future__ import annotations

import math
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.target import Shipment

FILE = "compose.yaml"


def make_compose_file(name: str, shipment: Shipment, settings: DockerSettings, serve: Serve) -> dict[str, Any]:
    """The compose file as plain data. User, health check and stop signal come with the image."""
    service: dict[str, Any] = {
        "image": shipment.image,
        "ports": [f"{settings.host}:{settings.port}:{serve.port or 8000}"],
        "read_only": True,
        "tmpfs": [f"/tmp:size={settings.tmp},mode=1777"],  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": settings.processes,
        "restart": settings.restart,
        "stop_grace_period": f"{stop_timeout(serve)}s",
    }
    if settings.cpu is not None:
        service["cpus"] = settings.cpu
    if settings.memory is not None:
        service["mem_limit"] = settings.memory
    if found := container_environment(settings):
        # Compose would expand what looks like a variable.
        service["environment"] = {name: value.replace("$", "$$") for name, value in found.items()}
    return {"name": name, "services": {name: service}}


def container_environment(settings: DockerSettings) -> dict[str, str]:
    """The settings' variables, and as many threads for numerical libraries as there are processors."""
    threads = {} if settings.cpu is None else {"OMP_NUM_THREADS": str(math.ceil(settings.cpu))}
    return {**threads, **settings.env}


def stop_timeout(serve: Serve) -> int:
    """Seconds between SIGTERM and SIGKILL: what the server takes to end in order, and some."""
    return math.ceil(serve.grace + serve.drain) + 5
