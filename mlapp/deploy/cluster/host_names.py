"""Checks the host names that KServe and Knative make for a service. Both refuse a long name only after the write.

Sources: https://github.com/kserve/kserve/issues/4807; `domain-template` in
https://knative.dev/docs/serving/configuration/config-network.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.transport import ApiRequest
from mlapp.deploy.target import DeployError

MAX_LABEL_LENGTH = 63
"""Maximum characters between two dots of a host name."""


class HostNames(NamedTuple):
    """How a platform makes host names.

    Attributes:
        platform: its name.
        config: path of the ConfigMap with the template.
        default: the template, if none is configured.
    """

    platform: str
    config: str
    default: str


KSERVE = HostNames(
    "KServe",
    "/api/v1/namespaces/kserve/configmaps/inferenceservice-config",
    "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}",
)
KNATIVE = HostNames(
    "Knative",
    "/api/v1/namespaces/knative-serving/configmaps/config-network",
    "{{.Name}}.{{.Namespace}}.{{.Domain}}",
)


def refuse_long_host_name(cluster: Cluster, hosts: HostNames, target: str, service: str) -> None:
    """Check the host name of a service, if the platform's template is readable.

    Args:
        target: name of mlapp's target.
        service: the service that gets the host name.

    Raises:
        DeployError: one of its labels is too long.
    """
    namespace = cluster.namespace
    if len(f"{service}-{namespace}") <= MAX_LABEL_LENGTH:
        return
    config = _read_host_name_config(cluster, hosts)
    if config is None:
        return
    values = {"Name": service, "Namespace": namespace}
    label = max(_format_host_name(_find_host_name_template(config, hosts), values).split("."), key=len)
    if len(label) > MAX_LABEL_LENGTH:
        raise DeployError(
            f"targets.{target}: {hosts.platform} would create the host name '{label}' of {len(label)} characters; "
            f"{MAX_LABEL_LENGTH} are allowed in one label.",
            f"Use a shorter `name`, or a namespace with a shorter name than '{namespace}'.",
        )


def _find_host_name_template(config: dict[str, Any], hosts: HostNames) -> str:
    data = config.get("data") or {}
    template = data.get("domain-template")
    with suppress(msgspec.MsgspecError):
        template = template or msgspec.json.decode(data.get("ingress", "{}"), type=dict[str, Any]).get("domainTemplate")
    return str(template or hosts.default)


def _format_host_name(template: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{-?\s*\.(\w+)\s*-?\}\}", lambda match: values.get(match[1], "domain"), template)


def _read_host_name_config(cluster: Cluster, hosts: HostNames) -> dict[str, Any] | None:
    with suppress(ApiError):
        config: dict[str, Any] | None = cluster.transport.send_json(
            ApiRequest("GET", hosts.config, "get", f"{hosts.platform}'s configuration")
        )
        return config
    return None
