"""The specification of an image as a Dockerfile, to read or to keep."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from mlapp.errors import ConfigError
from mlapp.images.image_spec import LAYOUT, USER, VENV, ImageSpec

HEADER = """# Made by mlapp. It only copies: the dependencies are laid out on the host, so the build needs no network
# and no emulator. `mlapp eject dockerfile` keeps this file and lays out {layout}; `docker build .` and `mlapp build`
# then use it."""


def render_dockerfile(spec: ImageSpec) -> str:
    """The Dockerfile. Its build context is the project's folder, which contains the layers' files.

    Raises:
        ConfigError: an environment variable has a line break or an invalid name.
    """
    _require_single_dockerfile_lines(spec.environment)
    variables = _escape_dockerfile_values(spec.environment)
    environment = {"PATH": "", **variables} | {"PATH": f"{VENV}/bin:{variables.get('PATH', '$PATH')}"}
    parts = [HEADER.format(layout=LAYOUT), f"FROM {spec.base}"]
    if spec.system_packages:
        parts.append(format_dockerfile_install(spec.system_packages))
    parts += [
        "\n".join(f"COPY {LAYOUT}/{layer.source} {layer.target}" for layer in spec.layers),
        # hadolint reports escaped references, too.
        ("# hadolint ignore=DL3044\n" if any("\\$" in value for value in variables.values()) else "")
        + _format_dockerfile_pairs("ENV", environment),
        f"WORKDIR {spec.workdir}",
        f"USER {USER}",
        *([f"EXPOSE {spec.port}"] if spec.port else []),
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD {json.dumps(spec.healthcheck)}"
        if spec.healthcheck
        else "HEALTHCHECK NONE",
        _format_dockerfile_pairs("LABEL", _escape_dockerfile_values(spec.labels)),
        f"ENTRYPOINT {json.dumps(spec.entrypoint)}",
    ]
    return "\n\n".join(parts) + "\n"


def format_dockerfile_install(packages: tuple[str, ...]) -> str:
    """The instruction that installs Debian packages."""
    return (
        "# hadolint ignore=DL3008\n"
        "RUN apt-get update \\\n"
        f" && apt-get install -y --no-install-recommends {' '.join(packages)} \\\n"
        " && rm -rf /var/lib/apt/lists/*"
    )


def _format_dockerfile_pairs(instruction: str, pairs: Mapping[str, str]) -> str:
    text = " \\\n    ".join(f'{name}="{value}"' for name, value in pairs.items())
    return f"{instruction} {text}"


def _escape_dockerfile_values(pairs: Mapping[str, str]) -> dict[str, str]:
    """The values, escaped for double quotes so that Docker expands nothing in them."""
    return {name: re.sub(r'(["$\\])', r"\\\1", value) for name, value in pairs.items()}


def _require_single_dockerfile_lines(environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if not re.fullmatch(r"[^\s=\"'\\$]+", name):
            raise ConfigError(f"image.env: {name!r} is not the name of a variable.", "Use letters, digits and _.")
        if "\n" in value or "\r" in value:
            raise ConfigError(
                f"image.env: {name} has a line break, which a Dockerfile cannot contain.",
                "Use `mlapp build` without a Dockerfile, or set it where the image runs, with env under targets.",
            )
