"""Cross-origin requests from browsers (CORS, the Fetch standard)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mlapp.serving.web.http import Headers, Response
from mlapp.serving.web.problems import HttpError

METHODS = b"GET, POST, OPTIONS"
MAX_AGE = b"600"


class Cors:
    """The allowed origins; `*` means all."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = {origin.encode() for origin in origins}

    def response_headers(self, request: Mapping[bytes, bytes]) -> Headers:
        """The CORS headers of the answer to a request."""
        if not self._origins:
            return ()
        if b"*" in self._origins:
            return ((b"access-control-allow-origin", b"*"),)
        origin = request.get(b"origin")
        if origin in self._origins:
            return ((b"access-control-allow-origin", origin), (b"vary", b"Origin"))
        return ((b"vary", b"Origin"),)

    def is_preflight(self, request: Mapping[bytes, bytes]) -> bool:
        """Whether a request is a CORS preflight request."""
        return bool(self._origins) and b"origin" in request and b"access-control-request-method" in request

    def preflight_response(self, request: Mapping[bytes, bytes]) -> Response:
        """The answer to a preflight request.

        Raises:
            HttpError: 400, the origin is not allowed. Without CORS headers the browser refuses the call.
        """
        if not ({b"*", request[b"origin"]} & self._origins):
            raise HttpError(400, "This origin is not allowed to call the server; see `serve.cors` in mlapp.yaml.")
        requested_headers = request.get(b"access-control-request-headers", b"content-type")
        return Response(
            headers=[
                (b"access-control-allow-methods", METHODS),
                (b"access-control-allow-headers", requested_headers),
                (b"access-control-max-age", MAX_AGE),
            ]
        )
