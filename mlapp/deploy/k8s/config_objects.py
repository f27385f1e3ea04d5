"""What the server is told: the ConfigMap of its variables, the ServiceAccount, and secrets from a vault."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from mlapp.config import Serve
from mlapp.deploy.cluster.labels import MANAGED_BY, PORT
from mlapp.deploy.cluster.settings import Namespace
from mlapp.deploy.k8s.render_context import RenderContext
from mlapp.deploy.k8s.settings import KubernetesSettings
from mlapp.errors import ConfigError
from mlapp.secret_variables import refuse_secret_variables

KEYS = "MLAPP_SERVE__API_KEYS"


def server_variables(context: RenderContext) -> dict[str, str]:
    """The server's settings that differ from their defaults, and the user's `env`, as environment variables.

    Raises:
        ConfigError: `serve.api_keys` or a secret in `env` is in plain text, where every reader of the cluster sees it.
    """
    if context.serve.api_keys and KEYS not in context.settings.secrets:
        raise ConfigError(
            "serve.api_keys would stand in the cluster in plain text.",
            f"Put the keys into a Secret, and name it: targets.k8s.secrets: {{{KEYS}: {{secret: NAME, key: KEY}}}}",
        )
    own = {name: _spell_setting(value) for name, value in context.settings.env.items()}
    refuse_secret_variables(
        "targets.k8s.env",
        own,
        "in a ConfigMap",
        "Put it into a Secret, and name that: targets.k8s.secrets: {{name}: {secret: NAME, key: KEY}}.",
    )
    serve = msgspec.to_builtins(context.serve)
    default = msgspec.to_builtins(Serve())
    told = {
        f"MLAPP_SERVE__{name.upper()}": _spell_setting(value)
        for name, value in serve.items()
        if value != default[name] and name not in ("api_keys", "host", "port")
    }
    if context.grace:
        told["MLAPP_SERVE__GRACE"] = _spell_setting(context.grace)
    if context.shipment.monitor_schedule:  # the CronJob does it
        told["MLAPP_MONITOR__RUN"] = "false"
    told.update(MLAPP_SERVE__HOST="0.0.0.0", MLAPP_SERVE__PORT=str(PORT))  # noqa: S104  every address of the pod
    return dict(sorted({**told, **own}.items()))


def _spell_setting(value: Any) -> str:
    """A setting as the environment spells it: true, 1.5, a,b."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def make_config_map(context: RenderContext) -> dict[str, Any]:
    """An immutable ConfigMap named by its content: pods of the old release keep theirs, a change rolls new ones."""
    data = server_variables(context)
    name = context.names.config_name(json.dumps(data, sort_keys=True))
    return context.make_document("ConfigMap", name, immutable=True, data=data)


def make_service_account(context: RenderContext) -> dict[str, Any] | None:
    """A ServiceAccount that may do nothing and has no token, unless an existing one is named."""
    settings = context.settings.service_account
    if settings.name is not None:
        return None
    document = context.make_document("ServiceAccount", context.names.base, automountServiceAccountToken=settings.token)
    if settings.annotations:
        document["metadata"].setdefault("annotations", {}).update(settings.annotations)
    return document


def make_external_secret(context: RenderContext) -> dict[str, Any] | None:
    """The ExternalSecret, when variables come from a vault; it makes a Secret of the app's name."""
    settings = context.settings.external_secret
    if settings is None:
        return None
    data = []
    for variable, place in sorted(settings.data.items()):
        key, _, part = place.partition("#")
        reference = {"key": key, "property": part} if part else {"key": key}
        data.append({"secretKey": variable, "remoteRef": reference})
    return context.make_document(
        "ExternalSecret",
        context.names.base,
        spec={
            "refreshInterval": settings.refresh,
            "secretStoreRef": {"kind": settings.store_kind, "name": settings.store},
            "target": {"name": context.names.base, "creationPolicy": "Owner"},
            "data": data,
        },
    )


def make_namespace(settings: KubernetesSettings) -> dict[str, Any] | None:
    """The Namespace, when it is to be made."""
    wanted = settings.namespace
    if not isinstance(wanted, Namespace) or not wanted.create:
        return None
    own = {MANAGED_BY: "mlapp"}
    if wanted.pod_security:
        own["pod-security.kubernetes.io/enforce"] = wanted.pod_security
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wanted.name, "labels": own}}
