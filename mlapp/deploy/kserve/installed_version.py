"""The version of KServe in a cluster, and the error for one that is too old.

KServe's API does not report its version, but the tag of its controller's image does. Users without permission to read
that Deployment can read the CRD's schema at `/openapi/v3`: `spec.predictor.logger.batchSize` is new in 0.17
(config/crd/full/serving.kserve.io_inferenceservices.yaml of v0.16.0 and v0.17.0). The CRDs of kserve-crd-minimal have
no schema of `spec`; then the version is unknown and the deploy continues.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.transport import ApiRequest

MIN_VERSION = (0, 17)
SPEC_CANARY = (0, 20)
"""The first version that runs `spec.canary`."""
CONTROLLER = "/apis/apps/v1/namespaces/kserve/deployments/kserve-controller-manager"
SCHEMA = "/openapi/v3/apis/serving.kserve.io/v1beta1"
NEW_FIELD = "batchSize"

_TAG = re.compile(r":v?(\d+)\.(\d+)[^@]*")


def refuse_old_kserve(cluster: Cluster, todo: str) -> None:
    """Check that KServe is 0.17 or later, if the user is allowed to read its version.

    Raises:
        ApiError: it is older.
    """
    version = read_controller_version(cluster)
    minimum = ".".join(map(str, MIN_VERSION))
    if version is None and _has_old_kserve_schema(cluster):
        raise ApiError(
            f"KServe in {cluster.connection.context} is older than {minimum}: its InferenceService has no "
            f"spec.predictor.logger.{NEW_FIELD}.",
            todo,
            404,
        )
    if version is not None and version < MIN_VERSION:
        version_text = ".".join(map(str, version))
        raise ApiError(
            f"KServe in {cluster.connection.context} is version {version_text}; mlapp needs {minimum} or later.",
            todo,
            404,
        )


def lacks_spec_canary(cluster: Cluster) -> bool:
    """Whether KServe is known to ignore `spec.canary`, which CRDs without a schema accept in every version."""
    version = read_controller_version(cluster)
    return version is not None and version < SPEC_CANARY


def read_controller_version(cluster: Cluster) -> tuple[int, int] | None:
    """Major and minor version, from the tag of the controller's image; None if not readable or not a version."""
    deployment = _read_kserve_object(cluster, CONTROLLER)
    containers = deployment.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or []
    image = next((str(container.get("image")) for container in containers if container.get("name") == "manager"), "")
    match = _TAG.search(image.rpartition("/")[2])
    return (int(match[1]), int(match[2])) if match else None


def _has_old_kserve_schema(cluster: Cluster) -> bool:
    schemas = _read_kserve_object(cluster, SCHEMA).get("components", {}).get("schemas", {})
    schema: Any = next((candidate for name, candidate in schemas.items() if name.endswith(".InferenceService")), {})
    for name in ("spec", "predictor", "logger"):
        schema = schema.get("properties", {}).get(name, {})
    return bool(schema.get("properties")) and NEW_FIELD not in schema["properties"]


def _read_kserve_object(cluster: Cluster, path: str) -> dict[str, Any]:
    with suppress(ApiError):
        return cluster.transport.send_json(ApiRequest("GET", path, "get", "KServe's version"))
    return {}
