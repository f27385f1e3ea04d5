"""The app as a compose file: `docker compose up` runs one release as the docker target would."""

from __future__ import annotations

import math
import os
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.docker.settings import DockerSettings
from mlapp.deploy.target import Shipment
from mlapp.env_vars import REFERENCE
from mlapp.errors import ConfigError
from mlapp.secret_variables import refuse_secret_variables

FILE = "compose.yaml"


def make_compose_file(name: str, shipment: Shipment, settings: DockerSettings, serve: Serve) -> dict[str, Any]:
    """The compose file as plain data. User, health check and stop signal are part of the image."""
    service: dict[str, Any] = {
        "image": shipment.image,
        "ports": [f"{settings.host}:{settings.port}:{serve.port or 8000}"],
        "read_only": True,
        "tmpfs": [f"/tmp:size={settings.tmp},mode=1777"],  # noqa: S108
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": settings.processes,
        "restart": settings.restart,
        "stop_grace_period": f"{compute_stop_timeout(serve)}s",
    }
    if settings.cpu is not None:
        service["cpus"] = settings.cpu
    if settings.memory is not None:
        service["mem_limit"] = settings.memory
    if variables := _list_compose_variables(settings):
        # Compose expands variables: references must be expanded, and literal `$` must not be.
        service["environment"] = {
            name: value if REFERENCE.fullmatch(value) else value.replace("$", "$$") for name, value in variables.items()
        }
    return {"name": name, "services": {name: service}}


def make_compose_environment(settings: DockerSettings) -> dict[str, str]:
    """The settings' variables, and the thread count of numerical libraries from the setting `cpu`.

    A value of the form `${NAME}` is replaced with that local variable.

    Raises:
        ConfigError: a value is a secret in plain text, or refers to a variable that is not set.
    """
    variables = {}
    for name, value in _list_compose_variables(settings).items():
        reference = REFERENCE.fullmatch(value)
        if reference is not None and reference[1] not in os.environ:
            raise ConfigError(
                f"targets.docker.env.{name} needs the environment variable {reference[1]}, which is not set.",
                f"Set it before the command: export {reference[1]}=…",
            )
        variables[name] = value if reference is None else os.environ[reference[1]]
    return variables


def _list_compose_variables(settings: DockerSettings) -> dict[str, str]:
    """The variables as written in mlapp.yaml, and the thread count from the setting `cpu`.

    Raises:
        ConfigError: a value is a secret in plain text.
    """
    refuse_secret_variables(
        "targets.docker.env",
        settings.env,
        "in mlapp.yaml and in the compose file",
        "Name a variable of the deploying shell: targets.docker.env: {{name}: ${{name}}}.",
    )
    threads = {} if settings.cpu is None else {"OMP_NUM_THREADS": str(math.ceil(settings.cpu))}
    return {**threads, **settings.env}


def compute_stop_timeout(serve: Serve) -> int:
    """Seconds between SIGTERM and SIGKILL: the server's shutdown time plus a margin."""
    return math.ceil(serve.grace + serve.drain) + 5
