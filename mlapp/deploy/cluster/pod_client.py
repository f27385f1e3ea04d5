"""A real request to one pod: through a port-forward, or through the API server's proxy if that is not allowed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.pod_connection import forward_port, request_through_proxy
from mlapp.deploy.target import DeployError
from mlapp.request_body import RequestBody


def request_pod(
    cluster: Cluster,
    serve: Serve,
    pod: str,
    method: str,
    path: str,
    body: RequestBody | None = None,
    *,
    port: int = PORT,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and response of one request to a pod.

    Args:
        serve: the server's settings: whether it uses TLS, and its API keys as far as they are known locally.

    Raises:
        DeployError: neither a port-forward nor the proxy reaches the pod.
    """
    tls = serve.tls_cert is not None
    try:
        with forward_port(cluster, pod, port, tls) as connection:
            sent = {**({} if body is None else {"Content-Type": body.media_type}), **(headers or {})}
            if serve.api_keys:
                sent["X-API-Key"] = serve.api_keys[0]
            connection.request(method, path, None if body is None else body.content, sent)
            answer = connection.getresponse()
            return answer.status, answer.read()
    except ApiError as error:
        if error.code == 401:
            raise
        try:
            return request_through_proxy(cluster, pod, port, tls, method, path, body, headers)
        except ApiError as other:
            raise error if other.code == 403 else other from None  # the printed Role allows only port-forwards


def predict_at_pod(cluster: Cluster, serve: Serve, pod: str, inputs: Any) -> dict[str, Any]:
    """The response to `POST /predict`.

    Raises:
        DeployError: the pod does not answer, or answers with an error, which the message includes.
    """
    status, answer = request_pod(cluster, serve, pod, "POST", "/predict", RequestBody.of(inputs))
    text = answer.decode(errors="replace")
    if status != 200:
        raise AnswerError(pod, status, text)
    try:
        result = json.loads(text)
    except ValueError:
        raise AnswerError(pod, status, text) from None
    if not isinstance(result, dict) or "predictions" not in result:
        raise AnswerError(pod, status, text)
    return result


class AnswerError(DeployError):
    """A pod answers, but not with a prediction."""

    def __init__(self, pod: str, status: int, text: str) -> None:
        todo = "Try the same inputs with `mlapp serve` here; `mlapp logs` shows what the pod says."
        if status == 401:
            todo = "Set MLAPP_SERVE__API_KEYS to a key that the server knows."
        super().__init__(f"pod {pod} answered {status} to a prediction: {_extract_pod_problem(text)}", todo)
        self.status = status


def _extract_pod_problem(text: str) -> str:
    """The detail of a problem document; any other text is truncated."""
    try:
        problem = json.loads(text)
    except ValueError:
        return text.strip()[:300] or "nothing"
    if isinstance(problem, dict):
        return str(problem.get("detail") or problem.get("title") or text)[:300]
    return text[:300]
