"""HTTP requests and responses in the formats of Lambda's callers.

Function URLs and API Gateway's HTTP APIs use payload format 2.0, REST APIs use format 1.0, and an Application Load
Balancer its own: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html,
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from mlapp.aws_lambda import limits
from mlapp.embed.answers import PATHS, Answer, WebRequest
from mlapp.serving.web.problems import MEDIA, HttpError

STREAM_MEDIA = "application/vnd.awslambda.http-integration-response"
SEPARATOR = b"\0" * 8
"""Separator between status and body of a stream."""


@dataclass(frozen=True)
class HttpEvent:
    """An HTTP request.

    Attributes:
        is_balancer: an Application Load Balancer sent it.
        has_lists: headers are lists of values, also in the response.
        is_function_url: it came through the function URL, which can stream.
    """

    request: WebRequest
    is_balancer: bool = False
    has_lists: bool = False
    is_function_url: bool = False

    def encode_answer(self, answer: Answer) -> bytes:
        """Encode a response that does not stream. One that is too large becomes a problem response."""
        encoded = self._encode_answer(answer)
        limit = limits.BALANCER_ANSWER if self.is_balancer else limits.ANSWER
        if len(encoded) <= limit:
            return encoded
        problem = HttpError(406, limits.explain_response_limit(len(encoded), limit))
        return self._encode_answer(Answer(406, problem.problem_body(), MEDIA, answer.headers))

    def _encode_answer(self, answer: Answer) -> bytes:
        try:
            body, is_base64 = answer.body.decode(), False
        except UnicodeDecodeError:
            body, is_base64 = base64.b64encode(answer.body).decode(), True
        headers = answer.list_headers()
        response: dict[str, Any] = {"statusCode": answer.status}
        if self.is_balancer:
            response["statusDescription"] = f"{answer.status} {HTTPStatus(answer.status).phrase}"
        if self.has_lists:
            response["multiValueHeaders"] = {name: [value] for name, value in headers}
        else:
            response["headers"] = dict(headers)
        return msgspec.json.encode({**response, "body": body, "isBase64Encoded": is_base64})

    def stream_answer(self, answer: Answer) -> Iterator[bytes]:
        """Encode a response in parts: first status and headers, then the body."""
        headers = dict(answer.list_headers())
        yield msgspec.json.encode({"statusCode": answer.status, "headers": headers}) + SEPARATOR
        body = answer.iterate_body()
        try:
            yield from body
        finally:
            body.close()


def read_http_event(event: dict[str, Any]) -> HttpEvent | None:
    """The HTTP request in an event; None for any other event."""
    context = event.get("requestContext")
    if not isinstance(context, dict):
        return None
    lists = event.get("multiValueHeaders")
    event_headers = {name: ", ".join(values) for name, values in lists.items()} if lists else event.get("headers") or {}
    headers = {
        str(name).lower().encode("latin-1"): str(value).encode("latin-1", "replace")
        for name, value in event_headers.items()
    }
    http = context.get("http")
    if isinstance(http, dict):
        method, path = str(http.get("method", "")), str(event.get("rawPath", "/"))
    elif "httpMethod" in event:
        method, path = str(event["httpMethod"]), str(event.get("path", "/"))
    else:
        return None
    request = WebRequest(method, find_event_path(path), headers, _read_event_body(event, headers))
    return HttpEvent(
        request,
        is_balancer="elb" in context,
        has_lists=bool(lists) and "elb" in context,
        is_function_url=".lambda-url." in str(context.get("domainName", "")),
    )


def find_event_path(path: str) -> str:
    """The model's path, such as `/predict`, without an API stage or a mount point before it."""
    return next((model_path for model_path in sorted(PATHS, key=len, reverse=True) if path.endswith(model_path)), path)


def _read_event_body(event: dict[str, Any], headers: dict[bytes, bytes]) -> Callable[[int], bytes]:
    text = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        body = text.encode()
    else:
        try:
            body = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return _refuse_undecodable_http_event
    headers[b"content-length"] = str(len(body)).encode()
    return io.BytesIO(body).read


def _refuse_undecodable_http_event(size: int) -> bytes:
    raise HttpError(400, "The event declares a base64 body (isBase64Encoded), but its body is not base64.")
