"""The plan of an image as a Dockerfile, to read or to keep."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from mlapp.images.plan import LAYOUT, USER, VENV, Plan

HEADER = """# Made by mlapp. It only copies: the dependencies are laid out on the host, so the build needs no network
# and no emulator. `mlapp eject dockerfile` keeps this file and lays out {layout}; `docker build .` and `mlapp build`
# then use it."""


def render(plan: Plan) -> str:
    """The Dockerfile. Its context is the project's folder, with the layers' files laid out in it."""
    parts = [HEADER.format(layout=LAYOUT), f"FROM {plan.base}"]
    if plan.system_packages:
        parts.append(install(plan.system_packages))
    parts += [
        "\n".join(f"COPY {LAYOUT}/{layer.source} {layer.target}" for layer in plan.layers),
        _pairs("ENV", {"PATH": f"{VENV}/bin:$PATH", **plan.environment}),
        f"WORKDIR {plan.workdir}",
        f"USER {USER}",
        *([f"EXPOSE {plan.port}"] if plan.port else []),
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD {json.dumps(plan.healthcheck)}"
        if plan.healthcheck
        else "HEALTHCHECK NONE",
        _pairs("LABEL", plan.labels),
        f"ENTRYPOINT {json.dumps(plan.entrypoint)}",
    ]
    return "\n\n".join(parts) + "\n"


def install(packages: tuple[str, ...]) -> str:
    """The instruction that installs Debian packages."""
    return (
        "# hadolint ignore=DL3008\n"
        "RUN apt-get update \\\n"
        f" && apt-get install -y --no-install-recommends {' '.join(packages)} \\\n"
        " && rm -rf /var/lib/apt/lists/*"
    )


def seconds(value: float) -> int:
    """Whole seconds, rounded up."""
    return math.ceil(value)


def _pairs(instruction: str, pairs: Mapping[str, str]) -> str:
    joined = " \\\n    ".join(f"{name}={_quoted(value)}" for name, value in pairs.items())
    return f"{instruction} {joined}"


def _quoted(value: str) -> str:
    """A value in quotes; `$PATH` alone is for Docker to expand."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if value.endswith(":$PATH") else '"{}"'.format(escaped.replace("$", "\\$"))
