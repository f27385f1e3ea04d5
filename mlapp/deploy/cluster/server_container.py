"""Parts of the server's container that are the same for every cluster target."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster.settings import SecretVariable, ServerRollout

MARGIN = 5
"""Seconds between the server's drain deadline and the kubelet's."""


def make_server_probes(serve: Serve, startup: int, port: int | str) -> dict[str, Any]:
    """The startup, readiness and liveness probes.

    Args:
        startup: maximum seconds for loading the model.
        port: number or name of the server's port.
    """
    scheme = {"scheme": "HTTPS"} if serve.tls_cert else {}
    live = {"path": "/livez", "port": port, **scheme}
    ready = {"path": "/readyz", "port": port, **scheme}
    return {
        "startupProbe": {"httpGet": live, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": startup},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 2},
        "livenessProbe": {"httpGet": live, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
    }


def make_server_stop_hook(rollout: ServerRollout) -> dict[str, Any]:
    """The `lifecycle` field, if a stopping pod keeps serving.

    The pod is removed from the endpoints while it sleeps and still serves; SIGTERM follows.
    """
    return {"lifecycle": {"preStop": {"sleep": {"seconds": rollout.leave}}}} if rollout.leave else {}


def compute_server_stop_seconds(rollout: ServerRollout, serve: Serve, grace: float) -> int:
    """`terminationGracePeriodSeconds`: the preStop hook, the server's grace period, and its drain."""
    return rollout.leave + math.ceil(grace) + math.ceil(serve.drain) + MARGIN


def make_server_container_security() -> dict[str, Any]:
    """The container's security context, compliant with Pod Security `restricted` if the pod sets seccomp."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }


def make_server_container_secrets(secrets: Mapping[str, SecretVariable]) -> list[dict[str, Any]]:
    """Environment variables from existing Secrets, sorted by name."""
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": source.secret, "key": source.key}}}
        for name, source in sorted(secrets.items())
    ]
