"""The socket that the server listens on."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from mlapp.config import Serve
from mlapp.errors import ConfigError, MlappError
from mlapp.plain_numbers import parse_plain_integer


def bind_socket(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet, so that connections are refused until the model is ready.

    Raises:
        MlappError: the port is in use, or the address does not belong to this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise MlappError(
            f"Cannot listen on {host}:{port}: {error.strerror or error}.",
            "Choose another: --port 0 picks a free one.",
        ) from None
    listener.set_inheritable(True)
    return listener


def server_url(listener: socket.socket, tls: bool) -> str:
    """The server's URL for a browser on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{'https' if tls else 'http'}://{host}:{port}"


def choose_socket_port(settings: Serve, environ: Mapping[str, str]) -> int:
    """The port: `MLAPP_SERVE__PORT`, then `PORT`, which platforms set, then the setting.

    Raises:
        ConfigError: PORT is not a port.
    """
    port = environ.get("PORT")
    if not port or "MLAPP_SERVE__PORT" in environ:
        return settings.port
    number = parse_plain_integer(port)
    if number is None or number > 65535:
        raise ConfigError(f"The variable PORT is {port!r}, which is not a port.", "Set it to 0 … 65535, or unset it.")
    return number


def choose_default_socket_host() -> str:
    """The default address: 127.0.0.1, or 0.0.0.0 in a container, which is unreachable otherwise."""
    is_container = (
        "KUBERNETES_SERVICE_HOST" in os.environ
        or "container" in os.environ
        or Path("/.dockerenv").exists()
        or Path("/run/.containerenv").exists()
    )
    return "0.0.0.0" if is_container else "127.0.0.1"  # noqa: S104
