"""The program of HEALTHCHECK: exits with 0 if the server in this container is ready. Needs no shell and no curl."""

from __future__ import annotations

import http.client
import os
import ssl
import sys


def main() -> int:
    """Request /readyz on the server's port, which is the argument unless the environment overrides it."""
    port = int(os.environ.get("MLAPP_SERVE__PORT") or os.environ.get("PORT") or sys.argv[1])
    path = "/readyz"
    for open_connection in (http.client.HTTPConnection, _make_https_healthcheck_connection):
        try:
            connection = open_connection("127.0.0.1", port, timeout=3)
            connection.request("GET", path)
            return 0 if connection.getresponse().status == 200 else 1
        except (OSError, http.client.HTTPException):
            continue
    return 1


def _make_https_healthcheck_connection(host: str, port: int, timeout: float) -> http.client.HTTPConnection:
    context = ssl._create_unverified_context()  # noqa: S323 (this machine's own certificate)
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


if __name__ == "__main__":
    sys.exit(main())
