"""Errors as `application/problem+json` (RFC 9457): the problem and its place, without internals of the server."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Sequence
from typing import Any

import msgspec

from mlapp.errors import InputError, MlappError, Problem, UserCodeError

log = logging.getLogger("mlapp.serving")

TITLES = {
    400: "The body cannot be read",
    401: "An API key is needed",
    404: "Not found",
    405: "This method is not allowed here",
    406: "The answer is not available in this form",
    408: "The request took too long to arrive",
    413: "The body is too large",
    415: "The type of the body is not accepted",
    417: "This expectation cannot be met",
    422: InputError.title,
    431: "The headers are too large",
    500: "The model could not predict",
    501: "This transfer coding is not supported",
    503: "The server is busy",
    504: "The deadline has passed",
    505: "This version of HTTP is not supported",
}
MEDIA = b"application/problem+json"
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""An address in this process's memory, which a library's message can contain. It would help an attacker."""
CLOSE = ((b"connection", b"close"),)
"""The header of an answer that is sent before the whole body is received: the rest of the body is ignored."""


class HttpError(Exception):
    """An answer other than a prediction.

    Args:
        detail: one sentence for the client.
        errors: the fields and rows that are wrong.
        headers: further response headers.
        title: names the kind of error; None for the title of the status.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Problem] = (),
        headers: Sequence[tuple[bytes, bytes]] = (),
        title: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = ADDRESS.sub("", detail)
        self.errors = errors
        self.headers = headers
        self.title = title or TITLES.get(status, "Error")

    def problem_body(self) -> bytes:
        """The problem as JSON. `errors` holds `{"detail", "field", "row"}`, the last two if known."""
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            content["errors"] = [
                {"field": problem.field, "row": problem.row, "detail": ADDRESS.sub("", problem.detail)}
                for problem in self.errors
            ]
        return msgspec.json.encode(content)


def too_large_body_error(limit: int) -> HttpError:
    return HttpError(413, f"The body has more than {limit} bytes.", headers=CLOSE)


def make_http_error(error: BaseException) -> HttpError:
    """The answer to an error. A server error is logged with its traceback, which the answer omits.

    Clears the error's frames: a future that holds the error is part of a reference cycle, which would keep the
    request's body and features in memory until the garbage collector runs.
    """
    answer = _choose_problem(error)
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        traceback.clear_frames(link.__traceback__)
        chain.append(link)
        link = link.__cause__ or link.__context__
    return answer


def _choose_problem(error: BaseException) -> HttpError:
    if isinstance(error, HttpError):
        return error
    if isinstance(error, InputError):
        detail = "; ".join(problem.detail for problem in error.problems)
        return HttpError(422, detail, error.problems, title=error.title)
    if isinstance(error, UserCodeError):
        log.error("%s", error.what, exc_info=error.__cause__)
        return HttpError(500, "The model's code raised an error. The details are in the server's log.")
    if isinstance(error, MlappError):
        log.error("%s %s", error.what, error.todo)
        return HttpError(500, "The model's answer cannot be used. The reason is in the server's log.")
    log.error("An unexpected error in the server", exc_info=error)
    return HttpError(500, "Unexpected error. The details are in the server's log.")
