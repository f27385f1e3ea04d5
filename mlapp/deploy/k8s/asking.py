"""A real request to one pod: through a port-forward, or the API server's proxy where forwarding is not allowed."""

from __future__ import annotations

import json
from typing import Any

from mlapp.deploy.k8s.cluster import Cluster
from mlapp.deploy.k8s.refusal import ApiError
from mlapp.deploy.k8s.workload import PORT
from mlapp.deploy.target import DeployError


def request(
    cluster: Cluster, pod: str, method: str, path: str, body: Any = None, key: str | None = None
) -> tuple[int, bytes]:
    """Status and answer of one request to a pod.

    Args:
        key: an API key of the server.

    Raises:
        DeployError: neither a port-forward nor the proxy gets there.
    """
    try:
        with cluster.forwarded(pod, PORT) as connection:
            headers = {} if body is None else {"Content-Type": "application/json"}
            if key is not None:
                headers["X-API-Key"] = key
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
    except ApiError as error:
        if error.code == 401:
            raise
        return cluster.proxied(pod, PORT, method, path, body)


def predict(cluster: Cluster, pod: str, inputs: Any, key: str | None = None) -> dict[str, Any]:
    """The answer of `POST /predict`.

    Raises:
        DeployError: the pod does not answer, or answers with an error; says which.
    """
    status, answer = request(cluster, pod, "POST", "/predict", {"inputs": inputs}, key)
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
    """A pod answers, and not with a prediction."""

    def __init__(self, pod: str, status: int, text: str) -> None:
        super().__init__(
            f"pod {pod} answered {status} to a prediction: {_detail(text)}",
            "Try the same inputs with `mlapp serve` here; `mlapp logs` shows what the pod says.",
        )
        self.status = status


def _detail(text: str) -> str:
    """What a problem document says; the text itself, cut short, otherwise."""
    try:
        problem = json.loads(text)
    except ValueError:
        return text.strip()[:300] or "nothing"
    if isinstance(problem, dict):
        return str(problem.get("detail") or problem.get("title") or text)[:300]
    return text[:300]
