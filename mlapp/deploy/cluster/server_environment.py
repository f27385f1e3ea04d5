"""Environment variables of the server in a pod: the user's, and settings that differ from their defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from mlapp.config import Serve
from mlapp.deploy.cluster.labels import PORT
from mlapp.errors import ConfigError
from mlapp.secret_variables import refuse_secret_variables

API_KEYS_VARIABLE = "MLAPP_SERVE__API_KEYS"


def make_server_variables(
    serve: Serve,
    env: Mapping[str, Any],
    secrets: Collection[str],
    *,
    section: str,
    grace: float = 0.0,
    more: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The server's settings that differ from their defaults, and the user's `env`, as environment variables.

    Args:
        env: the user's variables; they take precedence.
        secrets: names of the variables that come from Secrets.
        section: the key of the target's settings, for errors.
        grace: seconds after SIGTERM during which the server still answers; 0 for the server's default.
        more: additional variables of the target.

    Raises:
        ConfigError: `serve.api_keys` or a secret in `env` is in plain text, visible to every reader of the cluster.
    """
    refuse_plain_server_secrets(serve, env, secrets, section)
    user_variables = {name: format_server_variable(value) for name, value in env.items()}
    settings = msgspec.to_builtins(serve)
    default = msgspec.to_builtins(Serve())
    variables = {
        f"MLAPP_SERVE__{name.upper()}": format_server_variable(value)
        for name, value in settings.items()
        if value != default[name] and name not in ("api_keys", "host", "port")
    }
    if grace:
        variables["MLAPP_SERVE__GRACE"] = format_server_variable(grace)
    variables.update(MLAPP_SERVE__HOST="0.0.0.0", MLAPP_SERVE__PORT=str(PORT))  # noqa: S104  every address of the pod
    return dict(sorted({**variables, **(more or {}), **user_variables}.items()))


def refuse_plain_server_secrets(serve: Serve, env: Mapping[str, Any], secrets: Collection[str], section: str) -> None:
    """Check the variables of a server. Arguments as for `make_server_variables`.

    Raises:
        ConfigError: `serve.api_keys` or a secret in `env` is in plain text, or a variable is in `env` and `secrets`.
    """
    if serve.api_keys and API_KEYS_VARIABLE not in secrets:
        raise ConfigError(
            "serve.api_keys would be stored in the cluster in plain text.",
            f"Put the keys into a Secret, and name it: {section}.secrets: "
            f"{{{API_KEYS_VARIABLE}: {{secret: NAME, key: KEY}}}}",
        )
    both = sorted(set(env) & set(secrets))
    if both:
        raise ConfigError(f"{section}: {both[0]} is in both `env` and `secrets`.", "Leave it in one of them.")
    refuse_secret_variables(
        f"{section}.env",
        {name: format_server_variable(value) for name, value in env.items()},
        "in the cluster",
        f"Put it into a Secret, and name that: {section}.secrets: {{{{name}}: {{secret: NAME, key: KEY}}}}.",
    )


def format_server_variable(value: Any) -> str:
    """A setting as the value of an environment variable: true, 1.5, a,b."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
