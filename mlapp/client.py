"""Calls a served model from Python, for example from another app's predictor."""

from __future__ import annotations

import asyncio
import http.client
import sys
import threading
import urllib.parse
from typing import Any

import msgspec

from mlapp.errors import InputError, MlappError, Problem, UsageError
from mlapp.request_body import RequestBody


class RemoteError(MlappError):
    """A served model did not answer with predictions."""


class Remote:
    """The model at a URL, such as `http://digits:8000`. Thread-safe; each thread keeps its connection open.

    Args:
        timeout: seconds for one call; the server gives up after the same time.
        api_key: sent as X-API-Key.

    Raises:
        UsageError: not an http or https URL.
    """

    def __init__(self, url: str, *, timeout: float = 30.0, api_key: str | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"'{url}' is not the URL of a server.", "Give it as http://host:8000.")
        self.url = url.rstrip("/")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._place = (parts.hostname, parts.port)
        self._path = f"{parts.path.rstrip('/')}/predict"
        self._timeout = timeout
        self._headers = {"x-request-timeout": str(timeout)}
        if api_key is not None:
            self._headers["x-api-key"] = api_key
        self._local = threading.local()

    def predict(self, inputs: Any) -> list[Any]:
        """Predictions for records, rows, columns, an array, a DataFrame or a `RequestBody`: one per row.

        Raises:
            InputError: the server refuses the inputs; the message names the fields.
            RemoteError: the server cannot be reached, or fails.
        """
        status, content = self._post_to_server_with_retry(
            inputs if isinstance(inputs, RequestBody) else _encode_client_inputs(inputs)
        )
        try:
            answer = msgspec.json.decode(content)
            if status == 200:
                predictions: list[Any] = answer["predictions"]
                return predictions
            detail = answer.get("detail", "")
            errors = answer.get("errors") or [{"detail": detail}]
        except (msgspec.DecodeError, AttributeError, KeyError, TypeError):
            raise RemoteError(f"{self.url} answered {status} and is not an mlapp server.", "Check the URL.") from None
        if status == 422:
            raise InputError([Problem(one["detail"], one.get("field"), one.get("row")) for one in errors])
        raise RemoteError(f"{self.url} answered {status}: {detail}", "See the log of that server.")

    async def predict_async(self, inputs: Any) -> list[Any]:
        """`predict` for an `async def` predictor: calls to several models run concurrently."""
        return await asyncio.to_thread(self.predict, inputs)

    def _post_to_server_with_retry(self, body: RequestBody) -> tuple[int, bytes]:
        """Send over the thread's open connection; if the server has closed it, send again over a new one."""
        is_new = getattr(self._local, "connection", None) is None
        try:
            return self._post_inputs_to_server(body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self._local.connection = None
            if is_new:
                raise self._explain_unreachable_server(error) from None
        except (OSError, http.client.HTTPException) as error:
            self._local.connection = None
            raise self._explain_unreachable_server(error) from None
        try:
            return self._post_inputs_to_server(body)
        except (OSError, http.client.HTTPException) as error:
            self._local.connection = None
            raise self._explain_unreachable_server(error) from None

    def _post_inputs_to_server(self, body: RequestBody) -> tuple[int, bytes]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._kind(*self._place, timeout=self._timeout)
        headers = {**self._headers, "content-type": body.media_type}
        connection.request("POST", self._path, body.content, _add_client_trace_headers(headers))
        response = connection.getresponse()
        return response.status, response.read()

    def _explain_unreachable_server(self, error: Exception) -> RemoteError:
        return RemoteError(f"{self.url} cannot be reached: {error}", "Check the URL and that the server runs.")


def _encode_client_inputs(inputs: Any) -> RequestBody:
    from mlapp.schema.json_values import to_json_value

    if hasattr(inputs, "columns"):
        inputs = inputs.to_dict("records")
    return RequestBody(msgspec.json.encode({"inputs": inputs}, enc_hook=to_json_value))


def _add_client_trace_headers(headers: dict[str, str]) -> dict[str, str]:
    """The request's headers, with those that continue this process's OpenTelemetry trace."""
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None:
        return headers
    headers = dict(headers)
    propagate.inject(headers)
    return headers
