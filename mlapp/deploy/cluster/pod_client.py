"""A real request to one pod: through a port-forward, or through the API server's proxy if that is not allowed."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any

from mlapp.config import Serve
from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError, make_api_error
from mlapp.deploy.cluster.labels import PORT
from mlapp.deploy.cluster.object_kinds import POD
from mlapp.deploy.cluster.transport import ApiCall, ApiRequest
from mlapp.deploy.target import DeployError
from mlapp.request_body import RequestBody

_HANDSHAKE = re.compile(r"Handshake status (\d+)")


@dataclass(frozen=True)
class PodRequest:
    """An HTTP request to a port of a pod."""

    pod: str
    method: str
    path: str
    body: RequestBody | None = None
    port: int = PORT
    headers: Mapping[str, str] = field(default_factory=dict)


def request_pod(cluster: Cluster, serve: Serve, request: PodRequest) -> tuple[int, bytes]:
    """Status and response of one request to a pod.

    Args:
        serve: the server's settings, for TLS and the API keys that are known locally.

    Raises:
        DeployError: neither a port-forward nor the proxy reaches the pod.
    """
    tls = serve.tls_cert is not None
    try:
        with forward_port(cluster, request.pod, request.port, tls) as connection:
            body = request.body
            headers = {**({} if body is None else {"Content-Type": body.media_type}), **request.headers}
            if serve.api_keys:
                headers["X-API-Key"] = serve.api_keys[0]
            connection.request(request.method, request.path, None if body is None else body.content, headers)
            response = connection.getresponse()
            return response.status, response.read()
    except ApiError as error:
        if error.code == 401:
            raise
        try:
            return request_through_proxy(cluster, request, tls)
        except ApiError as proxy_error:
            raise (
                error if proxy_error.code == 403 else proxy_error
            ) from None  # the printed Role allows only port-forwards


def predict_at_pod(cluster: Cluster, serve: Serve, pod: str, inputs: Any) -> dict[str, Any]:
    """The response to `POST /predict`.

    Raises:
        DeployError: the pod does not answer, or answers with an error, which the message includes.
    """
    status, content = request_pod(cluster, serve, PodRequest(pod, "POST", "/predict", RequestBody.of(inputs)))
    text = content.decode(errors="replace")
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
        todo = "Try the same inputs with `mlapp serve` here; `mlapp logs` shows the pod's output."
        if status == 401:
            todo = "Set MLAPP_SERVE__API_KEYS to one of the server's keys."
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


@contextmanager
def forward_port(cluster: Cluster, pod: str, port: int, tls: bool = False) -> Iterator[HTTPConnection]:
    """An HTTP connection to a pod's port, through the API server and the kubelet.

    With `tls`, the certificate is not verified: it names the Service, and the kubelet already identifies the pod.
    """
    from kubernetes.client.exceptions import ApiException
    from kubernetes.stream.ws_client import portforward_call

    headers: dict[str, str] = {}
    client = cluster.connection.client
    client.update_params_for_auth(headers, [], ["BearerToken"])
    path = f"{POD.api_path(cluster.namespace, pod)}/portforward"
    url = client.configuration.host + path
    try:
        forward = portforward_call(
            client.configuration, "GET", url, query_params=[("ports", str(port))], headers=headers
        )
    except ApiException as error:
        code = int(match.group(1)) if (match := _HANDSHAKE.search(str(error.reason))) else 0
        cluster.calls.append(ApiCall("portforward", path, code))
        raise make_api_error(
            code, str(error.reason), "create", f"pods/portforward of {pod}", cluster.connection
        ) from None
    cluster.calls.append(ApiCall("portforward", path, 101))
    connection = HTTPConnection("localhost", port, timeout=60)
    connection.sock = forward.socket(port)
    connection.sock.settimeout(60)
    try:
        if tls:
            connection.sock = _make_unverified_tls_context().wrap_socket(connection.sock)
        yield connection
    except (HTTPException, OSError) as error:
        detail = forward.error(port) or str(error)
        raise ApiError(f"The connection to pod {pod} was lost: {detail}", "Look at `mlapp logs`.", 0) from None
    finally:
        forward.close()


def request_through_proxy(cluster: Cluster, request: PodRequest, tls: bool) -> tuple[int, bytes]:
    """Status and response of a request to a pod through the API server's proxy.

    Raises:
        ApiError: the API server refused, or does not reach the pod.
    """
    name = f"{request.pod}:{request.port}"
    url = f"{POD.api_path(cluster.namespace, f'https:{name}' if tls else name)}/proxy{request.path}"
    object_title = f"pods/proxy of {request.pod}"
    body = request.body
    response = cluster.transport.send_call(
        ApiRequest(
            request.method,
            url,
            "create",
            object_title,
            body=body.content if body else None,
            media_type=body.media_type if body else "",
            headers=request.headers,
            is_idempotent=False,
            accepts_any_status=True,
        )
    )
    data = bytes(response.data)
    if response.status >= 400 and b'"kind":"Status"' in data.replace(b" ", b""):  # not from the pod
        raise make_api_error(response.status, data, "create", object_title, cluster.connection)
    return int(response.status), data


def _make_unverified_tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
