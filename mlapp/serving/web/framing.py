"""Checks the framing of requests (RFC 9112): refuses ambiguous heads, and ignores upgrade offers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlapp.serving.web.problems import HttpError

LARGEST_HEAD = 64 * 1024
"""Maximum bytes of a request besides its body: its headers, and unusually long framing of a chunked body."""
LINE_BREAK = re.compile(rb"[\r\n\x00]")
Header = tuple[bytes, bytes]


def check_request_head(url: bytes, headers: Sequence[Header], version: str) -> None:
    """Check what the parser does not check: the size of a head, its version, and its `Host` (RFC 9112, 3.2).

    Raises:
        HttpError: 431, too many bytes; 400, no `Host` in HTTP/1.1, or several; 505, HTTP/0.9.
    """
    if version not in ("1.1", "1.0"):
        raise HttpError(505, "This server supports only HTTP/1.1.")
    if len(url) + sum([len(name) + len(value) + 4 for name, value in headers]) > LARGEST_HEAD:
        raise HttpError(431, f"The headers have more than {LARGEST_HEAD} bytes.")
    hosts = sum([name == b"host" for name, _ in headers])
    if hosts != 1 and (hosts or version == "1.1"):
        raise HttpError(400, f"The request has {hosts or 'no'} Host header{'s' if hosts > 1 else ''}: send one.")


def is_websocket(method: bytes, headers: Sequence[Header]) -> bool:
    """Whether a request opens a WebSocket (RFC 6455, 4.1): a GET without a body and with no other upgrade offer."""
    offered = [value.strip().lower() for name, value in headers if name == b"upgrade"]
    has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
    return method == b"GET" and offered == [b"websocket"] and not has_body


def remove_upgrade_offer(method: bytes, url: bytes, version: str, headers: Sequence[Header]) -> bytes:
    """A request's head without its upgrade offer, which a server may ignore (RFC 9110, 7.8).

    Raises:
        HttpError: 400, a tunnel, or a header that cannot be reproduced.
    """
    if method == b"CONNECT":
        raise HttpError(400, "This server does not open tunnels.")
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if LINE_BREAK.search(value):
            raise HttpError(400, "A header has a line break within its value.")
        if name == b"connection":
            value = b", ".join([word for word in value.split(b",") if word.strip().lower() != b"upgrade"])
        if name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
