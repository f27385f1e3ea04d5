"""A client for Lambda's Runtime API, which provides a function's events and accepts its responses.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html, and for streams
https://docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html#runtimes-custom-response-streaming
"""

from __future__ import annotations

import base64
import http.client
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

VERSION = "/2018-06-01/runtime"
ERROR_TYPE = "Lambda-Runtime-Function-Error-Type"
ERROR_BODY = "Lambda-Runtime-Function-Error-Body"


class RuntimeApiError(Exception):
    """Lambda refused a request. The message has the status and Lambda's text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"Lambda's Runtime API answered {status}: {text:.500}")
        self.status = status


@dataclass(frozen=True)
class Invocation:
    """One event.

    Attributes:
        identity: the request ID.
        deadline: when Lambda stops the function, as Unix time in seconds.
        trace: the X-Ray trace ID, or empty.
        arn: the function's ARN, with the invoked version or alias.
        body: the event as JSON.
    """

    identity: str
    deadline: float
    trace: str
    arn: str
    body: bytes

    @property
    def remaining(self) -> float:
        """Seconds until Lambda stops the function."""
        return self.deadline - time.time()


class RuntimeApi:
    """A persistent connection to the Runtime API.

    Args:
        address: host and port, from `AWS_LAMBDA_RUNTIME_API`.
    """

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)  # no timeout: the function waits here for events

    def wait_for_invocation(self) -> Invocation:
        """Wait for the next event.

        Raises:
            RuntimeApiError: Lambda answers with an error. OSError: it does not answer.
        """
        self._connection.request("GET", f"{VERSION}/invocation/next")
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise RuntimeApiError(response.status, body.decode(errors="replace"))
        headers = response.headers
        return Invocation(
            headers["Lambda-Runtime-Aws-Request-Id"],
            int(headers.get("Lambda-Runtime-Deadline-Ms", "0")) / 1000,
            headers.get("Lambda-Runtime-Trace-Id", ""),
            headers.get("Lambda-Runtime-Invoked-Function-Arn", ""),
            body,
        )

    def send_answer(self, invocation: Invocation, body: bytes) -> None:
        """Send a JSON response.

        Raises:
            RuntimeApiError: 413 if it is too large.
        """
        self._post_to_runtime_api(
            f"invocation/{invocation.identity}/response", body, {"Content-Type": "application/json"}
        )

    def send_stream(self, invocation: Invocation, media: str, parts: Iterable[bytes]) -> None:
        """Send a response in parts. An error in between is reported in the trailers, as the Runtime API requires."""
        connection = self._connection
        connection.putrequest("POST", f"{VERSION}/invocation/{invocation.identity}/response")
        for name, value in (
            ("Content-Type", media),
            ("Lambda-Runtime-Function-Response-Mode", "streaming"),
            ("Transfer-Encoding", "chunked"),
            ("Trailer", f"{ERROR_TYPE}, {ERROR_BODY}"),
        ):
            connection.putheader(name, value)
        connection.endheaders()
        trailers = b""
        try:
            for part in parts:
                if part:
                    connection.send(b"%x\r\n%b\r\n" % (len(part), part))
        except OSError:
            raise
        except Exception as error:  # from the predictor: the status is sent, so only trailers can report it
            encoded_error = base64.b64encode(encode_lambda_error(type(error).__name__, str(error)))
            trailers = (
                f"{ERROR_TYPE}: {type(error).__name__}\r\n".encode()
                + ERROR_BODY.encode()
                + b": "
                + encoded_error
                + b"\r\n"
            )
        connection.send(b"0\r\n" + trailers + b"\r\n")
        self._read_runtime_answer()

    def send_error(self, invocation: Invocation, kind: str, message: str) -> None:
        """Report that the invocation failed."""
        headers = {"Content-Type": "application/json", ERROR_TYPE: kind}
        self._post_to_runtime_api(
            f"invocation/{invocation.identity}/error", encode_lambda_error(kind, message), headers
        )

    def send_init_error(self, kind: str, message: str) -> None:
        """Report that the function cannot start."""
        headers = {"Content-Type": "application/json", ERROR_TYPE: kind}
        self._post_to_runtime_api("init/error", encode_lambda_error(kind, message), headers)

    def _post_to_runtime_api(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        self._connection.request("POST", f"{VERSION}/{path}", body, headers)
        self._read_runtime_answer()

    def _read_runtime_answer(self) -> None:
        response = self._connection.getresponse()
        text = response.read()
        if response.status >= 400:
            raise RuntimeApiError(response.status, text.decode(errors="replace"))


def encode_lambda_error(kind: str, message: str) -> bytes:
    """An error in the format that Lambda returns to the caller."""
    return msgspec.json.encode({"errorMessage": message, "errorType": kind, "stackTrace": []})
