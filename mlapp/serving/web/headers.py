"""Reads headers that a request repeats (RFC 9110, 5.3): lists are joined, and two values of another header refused.

A proxy can act on the first line and a server on the last: then a client could, for example, pass a check of the proxy
with one API key and use another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlapp.serving.web.problems import HttpError

SINGLE = frozenset(
    (
        b"access-control-request-method",
        b"authorization",
        b"content-type",
        b"inference-header-content-length",
        b"origin",
        b"x-api-key",
        b"x-request-timeout",
    )
)
"""Headers with one value. `Content-Length` and `Host` are checked with the framing of the request."""
Header = tuple[bytes, bytes]


def join_headers(lines: Sequence[Header]) -> dict[bytes, bytes]:
    """Headers by name. Different lines with one name are joined with commas; a header with two values is then invalid,
    so that a request id or a trace context of the client is ignored."""
    headers = dict(lines)
    if len(headers) == len(lines):
        return headers
    values: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        others = values.setdefault(name, [])
        if value not in others or name not in SINGLE:
            others.append(value)
    return {name: b", ".join(parts) for name, parts in values.items()}


def check_single_headers(lines: Sequence[Header], headers: Mapping[bytes, bytes]) -> None:
    """Check that no header with one value has two.

    Args:
        headers: as joined by `join_headers`.

    Raises:
        HttpError: 400, it has.
    """
    if len(headers) == len(lines):
        return
    for name, value in lines:
        if name in SINGLE and headers[name] != value:
            raise HttpError(400, f"The request has {name.decode().title()} headers with different values: send one.")


def read_content_coding(headers: Mapping[bytes, bytes]) -> bytes:
    """The coding of a body in lower case; empty if it has none.

    Raises:
        HttpError: 415, it has several.
    """
    header = headers.get(b"content-encoding")
    if header is None:
        return b""
    codings = [coding for part in header.split(b",") if (coding := part.strip().lower()) not in (b"", b"identity")]
    if len(codings) > 1:
        raise HttpError(415, "The body has several content codings. Use gzip or deflate once.")
    return codings[0] if codings else b""
