"""What KServe's controller refuses in Standard mode only after the InferenceService is written: known before.

Source: https://github.com/kserve/kserve, issues 4807 (host names) and 5196 (a change of the autoscaler).
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import msgspec

from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.object_kinds import AUTOSCALER
from mlapp.deploy.target import DeployError

LONGEST_LABEL = 63
"""Characters between two dots of a host name."""
CONFIG = "/api/v1/namespaces/kserve/configmaps/inferenceservice-config"
TEMPLATE = "{{ .Name }}-{{ .Namespace }}.{{ .IngressDomain }}"
"""Default of `ingress.domainTemplate`."""


def refuse_long_host_name(cluster: Cluster, service: str) -> None:
    """Check the host name that KServe makes for the predictor, as far as its template is readable.

    Args:
        service: name of the InferenceService.

    Raises:
        DeployError: one of its labels is too long.
    """
    namespace = cluster.namespace
    values = {"Name": f"{service}-predictor", "Namespace": namespace}
    if len(_format_host_name(TEMPLATE, values).partition(".")[0]) <= LONGEST_LABEL:
        return
    config = _read_if_allowed(cluster, CONFIG)
    if not config:
        return
    template = TEMPLATE
    with suppress(msgspec.MsgspecError):
        ingress = msgspec.json.decode(config.get("data", {}).get("ingress", "{}"), type=dict[str, Any])
        template = str(ingress.get("domainTemplate") or TEMPLATE)
    label = max(_format_host_name(template, values).split("."), key=len)
    if len(label) > LONGEST_LABEL:
        raise DeployError(
            f"targets.kserve: KServe makes the host name '{label}' of {len(label)} characters; "
            f"{LONGEST_LABEL} are allowed.",
            f"Use a shorter `name`, or a namespace with a shorter name than '{namespace}'.",
        )


def refuse_second_autoscaler(cluster: Cluster, service: str) -> None:
    """Check that KServe's HorizontalPodAutoscaler is gone before KEDA scales the same pods.

    Raises:
        DeployError: it is there.
    """
    name = f"{service}-predictor"
    found: dict[str, Any] | None = None
    with suppress(ApiError):  # no permission to read it
        found = cluster.get_object(AUTOSCALER, name)
    owners = (found or {}).get("metadata", {}).get("ownerReferences") or []
    if any(owner.get("kind") == "InferenceService" for owner in owners):
        raise DeployError(
            f"targets.kserve: KServe keeps the HorizontalPodAutoscaler {name} when the autoscaler changes to keda, "
            "and KEDA refuses a second one.",
            "Deploy once with `autoscaler: external`, which removes it; then use keda.",
        )


def _format_host_name(template: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{-?\s*\.(\w+)\s*-?\}\}", lambda found: values.get(found[1], "domain"), template)


def _read_if_allowed(cluster: Cluster, path: str) -> dict[str, Any]:
    with suppress(ApiError):
        return cluster.transport.send_json("GET", path, verb="get", object="KServe's configuration")
    return {}
