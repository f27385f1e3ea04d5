"""Checks the framing of requests (RFC 9112): refuses ambiguous heads, and ignores upgrade offers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mlapp.serving.web.problems import CLOSE, HttpError

LARGEST_HEAD = 64 * 1024
"""Maximum bytes of a request besides its body: its headers, and unusually long framing of a chunked body."""
HOST = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*", re.ASCII)
"""A host with an optional port (RFC 3986, 3.2.2 and 3.2.3). It can be empty."""
LINE_BREAK = re.compile(rb"[\r\n\x00]")
Header = tuple[bytes, bytes]


def check_request_head(url: bytes, headers: Sequence[Header], version: str) -> None:
    """Check what the parser does not check: the size of a head, its version, `Host` (RFC 9112, 3.2) and framing.

    Raises:
        HttpError: 431, too many bytes; 400, no valid `Host` in HTTP/1.1, or several; 505, HTTP/0.9; and as for
            `check_transfer_coding`.
    """
    if version not in ("1.1", "1.0"):
        raise HttpError(505, "This server supports only HTTP/1.1.")
    if len(url) + sum([len(name) + len(value) + 4 for name, value in headers]) > LARGEST_HEAD:
        raise HttpError(431, f"The headers have more than {LARGEST_HEAD} bytes.")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version == "1.1"):
        count = len(hosts)
        raise HttpError(400, f"The request has {count or 'no'} Host header{'s' if count > 1 else ''}: send one.")
    if hosts and not HOST.fullmatch(hosts[0].strip()):
        raise HttpError(400, "The Host header is not a host name or address with an optional port.")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings:
        check_transfer_coding(codings, version)


def check_transfer_coding(codings: Sequence[bytes], version: str) -> None:
    """Check the values of `Transfer-Encoding`, by which a proxy and a server must agree on the end of a request.

    Raises:
        HttpError: 501, another coding than `chunked` (RFC 9112, 6.1); 400, HTTP/1.0, which has none.
    """
    if version == "1.0":
        raise HttpError(400, "A request in HTTP/1.0 cannot have a Transfer-Encoding.", headers=CLOSE)
    value = b", ".join(codings).strip()
    if value.lower() != b"chunked":
        coding = value.decode("latin-1")
        raise HttpError(501, f"Transfer-Encoding {coding!r:.200} is not supported. Use chunked.", headers=CLOSE)


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
