"""Connections to a pod's port: a port-forward through the API server and the kubelet, or the API server's proxy."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException

from mlapp.deploy.cluster.api_client import Cluster
from mlapp.deploy.cluster.api_errors import ApiError, make_api_error
from mlapp.deploy.cluster.object_kinds import POD
from mlapp.deploy.cluster.transport import ApiCall
from mlapp.request_body import RequestBody

_HANDSHAKE = re.compile(r"Handshake status (\d+)")


@contextmanager
def forward_port(cluster: Cluster, pod: str, port: int, tls: bool = False) -> Iterator[HTTPConnection]:
    """An HTTP connection to a pod's port, through the API server and the kubelet.

    With `tls`, the certificate is not verified: it is for the Service's name, and the kubelet identifies the pod.
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
        code = int(found.group(1)) if (found := _HANDSHAKE.search(str(error.reason))) else 0
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
            connection.sock = _unverified_tls_context().wrap_socket(connection.sock)
        yield connection
    except (HTTPException, OSError) as error:
        detail = forward.error(port) or str(error)
        raise ApiError(f"The connection to pod {pod} was lost: {detail}", "Look at `mlapp logs`.", 0) from None
    finally:
        forward.close()


def request_through_proxy(
    cluster: Cluster,
    pod: str,
    port: int,
    tls: bool,
    method: str,
    path: str,
    body: RequestBody | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status and response of a request to a pod's port through the API server's proxy."""
    name = f"https:{pod}:{port}" if tls else f"{pod}:{port}"
    url = f"{POD.api_path(cluster.namespace, name)}/proxy{path}"
    what = f"pods/proxy of {pod}"
    content, media_type = (body.content, body.media_type) if body else (None, "")
    answer = cluster.transport.send_call(
        method,
        url,
        body=content,
        content=media_type,
        verb="create",
        object=what,
        again=False,
        passed_on=True,
        headers=headers,
    )
    data = bytes(answer.data)
    if answer.status >= 400 and b'"kind":"Status"' in data.replace(b" ", b""):  # not from the pod
        raise make_api_error(answer.status, data, "create", what, cluster.connection)
    return int(answer.status), data


def _unverified_tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
