"""Checks the host names that KServe and Knative make for a service: both refuse a long one only after a write.

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

LONGEST_LABEL = 63
"""Characters between two dots of a host name."""


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
    """Check the host name of a service, as far as the platform's template is readable.

    Args:
        target: name of mlapp's target.
        service: the service that gets the host name.

    Raises:
        DeployError: one of its labels is too long.
    """
    namespace = cluster.namespace
    if len(f"{service}-{namespace}") <= LONGEST_LABEL:
        return
    config = _read_if_allowed(cluster, hosts)
    if config is None:
        return
    values = {"Name": service, "Namespace": namespace}
    label = max(_format_host_name(_find_template(config, hosts), values).split("."), key=len)
    if len(label) > LONGEST_LABEL:
        raise DeployError(
            f"targets.{target}: {hosts.platform} would create the host name '{label}' of {len(label)} characters; "
            f"{LONGEST_LABEL} are allowed in one label.",
            f"Use a shorter `name`, or a namespace with a shorter name than '{namespace}'.",
        )


def _find_template(config: dict[str, Any], hosts: HostNames) -> str:
    data = config.get("data") or {}
    found = data.get("domain-template")
    with suppress(msgspec.MsgspecError):
        found = found or msgspec.json.decode(data.get("ingress", "{}"), type=dict[str, Any]).get("domainTemplate")
    return str(found or hosts.default)


def _format_host_name(template: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{-?\s*\.(\w+)\s*-?\}\}", lambda found: values.get(found[1], "domain"), template)


def _read_if_allowed(cluster: Cluster, hosts: HostNames) -> dict[str, Any] | None:
    with suppress(ApiError):
        found: dict[str, Any] | None = cluster.transport.send_json(
            ApiRequest("GET", hosts.config, "get", f"{hosts.platform}'s configuration")
        )
        return found
    return None
