"""Calls to the API server, with retries while it is unreachable or busy, collected warnings and readable errors."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

from mlapp.deploy.cluster.api_errors import UnreachableError, make_api_error
from mlapp.deploy.cluster.connection import Connection
from mlapp.plain_numbers import parse_plain_number

USER_AGENT = "mlapp"
RETRY_STATUSES = frozenset({429, 500, 502, 503, 504})
UNKNOWN_FIELD = b"failed to create typed patch object"
PATIENCE = 30.0
"""Seconds for which a call is retried once the server has answered any call."""


@dataclass(frozen=True)
class ApiCall:
    """A completed API call."""

    verb: str
    path: str
    status: int


@dataclass(frozen=True)
class ApiRequest:
    """A request to the API server.

    Attributes:
        verb: the RBAC verb, for errors and the list of calls.
        object: the object's kind and name, for errors.
        body: sent as JSON unless it is bytes.
        media_type: of the body.
        stream: seconds to wait for each part of a response that is read as a stream; None reads it whole.
        is_idempotent: whether it may be sent again if the first attempt may have arrived.
        accepts_any_status: return the response whatever its status, because it comes from a pod.
    """

    method: str
    path: str
    verb: str
    object: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: float | None = None
    is_idempotent: bool = True
    accepts_any_status: bool = False


@dataclass
class Transport:
    """The connection to one API server."""

    connection: Connection
    calls: list[ApiCall] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    clock_offset: timedelta = timedelta()
    """How far the server's clock is ahead of the local clock, accurate to about a second."""
    _has_answered: bool = False

    def send_json(self, request: ApiRequest) -> dict[str, Any]:
        """The response of `send_call`, parsed as JSON."""
        content: dict[str, Any] = json.loads(self.send_call(request).data)
        return content

    def send_call(self, request: ApiRequest) -> Any:
        """Send a request, with retries while the server is unreachable or busy; returns urllib3's response.

        Raises:
            UnreachableError: the server does not answer. ApiError: it refused.
        """
        from urllib3.exceptions import HTTPError

        end = time.monotonic() + (PATIENCE if self._has_answered else 0)
        pause = 0.2
        while True:
            try:
                response = self._send_call_once(request)
            except HTTPError as error:
                if time.monotonic() + pause > end or not request.is_idempotent:
                    raise self._make_unreachable_server_error(error) from None
                time.sleep(pause)
                pause = min(pause * 2, 4)
                continue
            self._has_answered = True
            self.calls.append(ApiCall(request.verb, request.path, response.status))
            self._update_clock_offset(response)
            self._collect_warnings(response)
            if response.status < 300 or request.accepts_any_status:
                return response
            data = response.data
            is_final = UNKNOWN_FIELD in data  # server-side apply answers 500 for an unknown field
            can_wait = time.monotonic() + pause <= end and not is_final
            can_repeat = request.is_idempotent or response.status == 429
            if response.status in RETRY_STATUSES and can_repeat and can_wait:
                time.sleep(min(parse_plain_number(response.headers.get("Retry-After") or "") or pause, 10))
                pause = min(pause * 2, 4)
                continue
            raise make_api_error(response.status, data, request.verb, request.object, self.connection)

    def _send_call_once(self, request: ApiRequest) -> Any:
        from urllib3 import Timeout

        headers = {"Accept": "application/json", "User-Agent": USER_AGENT, **request.headers}
        client = self.connection.client
        client.update_params_for_auth(headers, [], ["BearerToken"])
        body = request.body
        if body is not None:
            headers["Content-Type"] = request.media_type
        return client.rest_client.pool_manager.request(
            request.method,
            client.configuration.host + request.path + (f"?{urlencode(request.query)}" if request.query else ""),
            body=body if body is None or isinstance(body, bytes) else json.dumps(body).encode(),
            headers=headers,
            timeout=Timeout(connect=5, read=request.stream or 30),
            retries=False,
            preload_content=request.stream is None,
        )

    def _make_unreachable_server_error(self, error: Exception) -> UnreachableError:
        cause = getattr(error, "reason", None) or error
        host = self.connection.client.configuration.host
        return UnreachableError(
            f"The API server of {self.connection.context}, {host}, does not answer: {cause}",
            "Check the network and VPN, and that the context is correct: `kubectl config get-contexts`.",
        )

    def _update_clock_offset(self, response: Any) -> None:
        with suppress(ValueError):
            self.clock_offset = parsedate_to_datetime(response.headers.get("Date") or "") - datetime.now(timezone.utc)

    def _collect_warnings(self, response: Any) -> None:
        for value in response.headers.getlist("Warning"):
            text = value.partition('"')[2].rstrip('"').replace('\\"', '"')
            if text and text not in self.warnings:
                self.warnings.append(text)


def read_transport_lines(response: Any) -> Iterable[bytes]:
    """The lines of a streamed response, as they arrive."""
    partial_line = b""
    for chunk in response.stream(65536, decode_content=True):
        *lines, partial_line = (partial_line + chunk).split(b"\n")
        yield from (line for line in lines if line)
    if partial_line:
        yield partial_line
