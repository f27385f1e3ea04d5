"""Requests to a deployed function: a prediction, and a check that a version starts."""

from __future__ import annotations

import base64
from typing import Any

import msgspec

from mlapp.aws_lambda.limits import ANSWER
from mlapp.aws_lambda.settings import LambdaSettings
from mlapp.deploy.aws_lambda.function import Function
from mlapp.deploy.target import DeployError
from mlapp.request_body import RequestBody


def request_function_prediction(
    function: Function, body: RequestBody, qualifier: str, api_key: str | None
) -> dict[str, Any]:
    """The response to `POST /predict` of a version or alias.

    Raises:
        DeployError: the function failed, refused the inputs, ran out of memory or timed out.
    """
    if body.media_type == "application/json":
        payload = body.content
    else:
        payload = msgspec.json.encode(_make_invocation_event(body, api_key))
    if len(payload) > ANSWER:
        raise DeployError(
            f"The request has {len(payload)} bytes; Lambda accepts at most 6 MB.",
            "Send fewer rows, or upload the file to S3 and use a bucket trigger.",
        )
    content, is_failure = function.invoke(payload, qualifier)
    if is_failure:
        raise DeployError(
            f"{function.name}:{qualifier} failed: {_explain_invocation_failure(content, function.settings)}",
            "See `mlapp logs --target lambda`.",
        )
    return _read_invocation_predictions(content, f"{function.name}:{qualifier}")


def start_function_version(function: Function, version: str) -> None:
    """Start a version: load its model and check that it is ready.

    Raises:
        DeployError: it does not start.
    """
    context = {"http": {"method": "GET", "path": "/readyz"}}
    payload = msgspec.json.encode({"version": "2.0", "rawPath": "/readyz", "requestContext": context})
    content, is_failure = function.invoke(payload, version)
    if is_failure or _read_invocation_status(content) != 200:
        raise DeployError(
            f"{function.name}:{version} does not start: {_explain_invocation_failure(content, function.settings)}",
            "See `mlapp logs --target lambda`.",
        )


def _make_invocation_event(body: RequestBody, api_key: str | None) -> dict[str, Any]:
    headers = {"content-type": body.media_type, **({"x-api-key": api_key} if api_key else {})}
    return {
        "version": "2.0",
        "rawPath": "/predict",
        "headers": headers,
        "requestContext": {"http": {"method": "POST", "path": "/predict"}},
        "body": base64.b64encode(body.content).decode(),
        "isBase64Encoded": True,
    }


def _read_invocation_predictions(content: bytes, name: str) -> dict[str, Any]:
    """The predictions in a payload, which is either the answer of `/predict` or an HTTP response with it.

    Raises:
        DeployError: the payload is neither, or it is a problem document.
    """
    try:
        answer = msgspec.json.decode(content)
        if isinstance(answer, dict) and "statusCode" in answer:
            status, answer = answer["statusCode"], msgspec.json.decode(answer["body"])
            if status != 200:
                raise DeployError(
                    f"{name} answers {status}: {answer['detail']}", "Send inputs that match the model's schema."
                )
    except (msgspec.DecodeError, KeyError, TypeError):
        answer = None
    if not isinstance(answer, dict) or "predictions" not in answer:
        raise DeployError(
            f"{name} does not answer with predictions: {content[:200].decode(errors='replace')}",
            "See `mlapp logs --target lambda`.",
        )
    return answer


def _read_invocation_status(content: bytes) -> int | None:
    """The status of an HTTP response in a payload; None if the payload is not one."""
    try:
        answer = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return None
    return answer.get("statusCode") if isinstance(answer, dict) else None


def _explain_invocation_failure(content: bytes, settings: LambdaSettings) -> str:
    """Explain a function's failure, with the setting to change."""
    try:
        error = msgspec.json.decode(content)
        kind, text = str(error.get("errorType", "")), str(error.get("errorMessage") or content[:500].decode())
    except (msgspec.DecodeError, AttributeError):
        kind, text = "", content[:500].decode(errors="replace")
    if "timed out" in text or kind == "Sandbox.Timedout":
        return f"{text} targets.lambda.timeout is {settings.timeout} s; more targets.lambda.memory gives more CPU."
    if kind in ("Runtime.OutOfMemory", "OutOfMemory") or "signal: killed" in text:
        return f"{text} The function ran out of memory: targets.lambda.memory is {settings.memory} MB."
    if kind == "Runtime.ExitError" or kind == "Runtime.InvalidEntrypoint":
        return f"{text} The process ended before it answered; targets.lambda.architecture is {settings.architecture}."
    return f"{kind}: {text}" if kind else text
