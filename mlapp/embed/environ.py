"""A WSGI environment (PEP 3333) as a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mlapp.embed.answers import WebRequest


def read_environ(
    environ: Mapping[str, Any], path: str | None = None, read: Callable[[int], bytes] | None = None
) -> WebRequest:
    """The request in a WSGI environment.

    Args:
        path: overrides PATH_INFO, for an application below a router that does not strip its prefix.
        read: returns at most the given number of bytes of the body; by default reads `wsgi.input`.
    """
    headers = {
        name[5:].replace("_", "-").lower().encode("latin-1"): value.encode("latin-1", "replace")
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower().encode()] = str(environ[name]).encode("latin-1", "replace")
    if path is None:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace") or "/"
    return WebRequest(environ["REQUEST_METHOD"], path, headers, read or _find_environ_reader(environ, headers))


def _find_environ_reader(environ: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Callable[[int], bytes]:
    """The function that reads the body. Without a content length, it reads only if the web server marks the end."""
    read: Callable[[int], bytes] = environ["wsgi.input"].read
    has_end = b"content-length" in headers or b"transfer-encoding" in headers or environ.get("wsgi.input_terminated")
    return read if has_end else lambda size: b""
