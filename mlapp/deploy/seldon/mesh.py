"""A prediction through Seldon's mesh: its Service `seldon-mesh` routes by the header `Seldon-Model`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.object_kinds import POD, SERVICE
from mlapp.deploy.cluster.pod_client import PodRequest, request_pod
from mlapp.deploy.cluster.pods import is_pod_ready
from mlapp.deploy.target import DeployError
from mlapp.errors import UsageError
from mlapp.request_body import RequestBody

MESH = "seldon-mesh"
HEADER = "Seldon-Model"
DATATYPES = ((bool, "BOOL"), (int, "INT64"), (float, "FP64"), (str, "BYTES"))


def predict_through_mesh(cluster: Cluster, model: str, inputs: Any) -> dict[str, Any]:
    """The response of the Open Inference Protocol, as `{"predictions": [...]}`.

    Raises:
        DeployError: the namespace has no mesh, or the mesh answers with an error.
        UsageError: the inputs cannot be expressed as tensors.
    """
    body = json.dumps(make_mesh_tensors(inputs)).encode()
    pod, port = _find_mesh_pod(cluster)
    path = f"/v2/models/{model}/infer"
    request = PodRequest(pod, "POST", path, RequestBody(body), port, headers={HEADER: model})
    status, content = request_pod(cluster, Serve(), request)
    text = content.decode(errors="replace")
    if status != 200:
        raise DeployError(
            f"Model {model} answered {status} to a prediction: {text.strip()[:300] or 'nothing'}",
            "`mlapp logs` shows MLServer's output; `mlserver start FOLDER` serves the same export here.",
        )
    outputs = json.loads(text).get("outputs") or []
    return {"predictions": outputs[0].get("data") if outputs else [], "model": model}


def make_mesh_tensors(inputs: Any) -> dict[str, Any]:
    """Convert records or columns to a request with one tensor per column.

    Raises:
        UsageError: the inputs are neither.
    """
    columns: Mapping[str, Sequence[Any]] | None = None
    if isinstance(inputs, Mapping):
        columns = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
    elif isinstance(inputs, Sequence) and inputs and all(isinstance(row, Mapping) for row in inputs):
        columns = {name: [row.get(name) for row in inputs] for name in inputs[0]}
    if not columns:
        raise UsageError("Seldon accepts only records or named columns.", 'Give the features as [{"column": 1.5}].')
    tensors = []
    for name, values in columns.items():
        datatype = next(
            (datatype_name for kind, datatype_name in DATATYPES if all(isinstance(value, kind) for value in values)),
            None,
        )
        if datatype is None and all(isinstance(value, (int, float)) for value in values):
            datatype = "FP64"
        if datatype is None:
            raise UsageError(
                f"The column '{name}' has values of more than one type.",
                "Give only numbers, only strings or only booleans.",
            )
        tensors.append({"name": str(name), "datatype": datatype, "shape": [len(values), 1], "data": list(values)})
    return {"inputs": tensors}


def _find_mesh_pod(cluster: Cluster) -> tuple[str, int]:
    """A ready pod behind the mesh's Service, and its HTTP port."""
    service = cluster.get_object(SERVICE, MESH)
    if service is None:
        raise DeployError(
            f"There is no Service {MESH} in {cluster.place}: Seldon's runtime is not installed in this namespace.",
            "Create a SeldonRuntime there, or set targets.seldon.namespace to its namespace.",
        )
    selector = ",".join(f"{key}={value}" for key, value in (service["spec"].get("selector") or {}).items())
    ready = [pod["metadata"]["name"] for pod in cluster.list_objects(POD, selector) if is_pod_ready(pod)]
    if not ready:
        raise DeployError(f"The Service {MESH} in {cluster.place} has no ready pod.", "Ask Seldon's operator.")
    ports = [port.get("targetPort") for port in service["spec"].get("ports") or []]
    return ready[0], next((port for port in ports if isinstance(port, int)), 9000)
