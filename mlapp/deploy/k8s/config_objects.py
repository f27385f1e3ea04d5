"""Configuration of the server: the ConfigMap of its variables, the ServiceAccount, and secrets from a vault."""

from __future__ import annotations

import json
from typing import Any

from mlapp.deploy.cluster.object_kinds import CONFIG_MAP, EXTERNAL_SECRET, SERVICE_ACCOUNT
from mlapp.deploy.cluster.server_environment import make_server_variables
from mlapp.deploy.k8s.render_context import RenderContext


def make_config_variables(context: RenderContext) -> dict[str, str]:
    """The server's settings and the user's `env`, as environment variables.

    Raises:
        ConfigError: `serve.api_keys` or a secret in `env` is in plain text.
    """
    return make_server_variables(
        context.serve,
        context.settings.env,
        context.settings.secrets,
        section="targets.k8s",
        grace=context.grace,
        # the CronJob closes the monitoring windows
        more={"MLAPP_MONITOR__RUN": "false"} if context.has_monitoring_job else {},
    )


def make_config_map(context: RenderContext) -> dict[str, Any]:
    """An immutable ConfigMap, named by its content: old pods keep their own, and a change triggers a rollout."""
    data = make_config_variables(context)
    name = context.names.config_name(json.dumps(data, sort_keys=True))
    return context.make_document(CONFIG_MAP, name, immutable=True, data=data)


def make_service_account(context: RenderContext) -> dict[str, Any] | None:
    """A ServiceAccount without permissions and token, unless the settings name an existing one."""
    settings = context.settings.service_account
    if settings.name is not None:
        return None
    document = context.make_document(SERVICE_ACCOUNT, context.names.base, automountServiceAccountToken=settings.token)
    if settings.annotations:
        document["metadata"].setdefault("annotations", {}).update(settings.annotations)
    return document


def make_external_secret(context: RenderContext) -> dict[str, Any] | None:
    """The ExternalSecret, if variables come from a vault. It creates a Secret with the app's name."""
    settings = context.settings.external_secret
    if settings is None:
        return None
    data = []
    for variable, remote_key in sorted(settings.data.items()):
        key, _, property_name = remote_key.partition("#")
        reference = {"key": key, "property": property_name} if property_name else {"key": key}
        data.append({"secretKey": variable, "remoteRef": reference})
    return context.make_document(
        EXTERNAL_SECRET,
        context.names.base,
        spec={
            "refreshInterval": settings.refresh,
            "secretStoreRef": {"kind": settings.store_kind, "name": settings.store},
            "target": {"name": context.names.base, "creationPolicy": "Owner"},
            "data": data,
        },
    )
