"""The proxy: a container that holds the published port and forwards connections to the live release.

It keeps the port open while a release is replaced. It forwards bytes and does not parse HTTP: an open connection stays
with its release, which closes it during its own shutdown. On SIGHUP, it reloads the destination of new connections.

It runs as a single file in a container of the app's image and imports nothing from mlapp.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from pathlib import Path
from typing import cast

STATE = "/state"
BACKEND = "backend"
"""The file in STATE with the live release's container and port, such as `digits-3:8000`."""

PATIENCE = 10.0
"""Seconds that a connection waits for a backend that refuses it, for instance because it is restarting."""


class PipeEnd(asyncio.Protocol):
    """One end of a forwarded connection. Sends what it receives to `peer`, with flow control."""

    def __init__(self, peer: PipeEnd | None = None) -> None:
        self.peer = peer
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """Forward the end of one direction; the other stays open."""
        if self.peer is not None and self.peer.transport is not None and not self.peer.transport.is_closing():
            with contextlib.suppress(OSError):
                self.peer.transport.write_eof()
            return True
        return False

    def pause_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()


class Proxy:
    """The backend for new connections, and the connections in progress."""

    def __init__(self, state: Path) -> None:
        self._file = state / BACKEND
        self._backend = ("", 0)
        self._connecting: set[asyncio.Task[None]] = set()
        self.reload_backend()

    def reload_backend(self) -> None:
        """Read the destination of new connections."""
        host, _, port = self._file.read_text().strip().partition(":")
        self._backend = (host, int(port))

    def accept_client(self) -> PipeEnd:
        """The client's end of a new connection."""
        return _ClientEnd(self)

    def connect_client(self, client: _ClientEnd) -> None:
        """Connect a client to the live release."""
        task = asyncio.get_running_loop().create_task(self._connect_backend(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect_backend(self, client: _ClientEnd) -> None:
        assert client.transport is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + PATIENCE
        while not client.transport.is_closing():
            try:
                _, backend = await loop.create_connection(lambda: PipeEnd(client), *self._backend)
            except OSError:
                if loop.time() > end:
                    break
                await asyncio.sleep(0.05)
                continue
            client.join_backend(backend)
            return
        client.transport.abort()


class _ClientEnd(PipeEnd):
    """The client's end. Buffers data that arrives before the backend is connected, and then pauses reading."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._front = proxy
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._front.connect_client(self)

    def data_received(self, data: bytes) -> None:
        if self.peer is not None:
            super().data_received(data)
            return
        self._early.append(data)
        if len(self._early) == 1 and self.transport is not None:
            self.transport.pause_reading()

    def join_backend(self, backend: PipeEnd) -> None:
        """Forward buffered and future data to the backend."""
        assert self.transport is not None
        assert backend.transport is not None
        self.peer = backend
        if self.transport.is_closing():
            backend.transport.close()
            return
        if self._early:
            backend.transport.write(b"".join(self._early))
            self._early.clear()
            self.transport.resume_reading()


async def serve_proxy(port: int, state: Path) -> None:
    """Forward connections until SIGTERM."""
    proxy = Proxy(state)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, proxy.reload_backend)
    proxy.reload_backend()  # it may have changed before there was a handler
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(proxy.accept_client, "0.0.0.0", port, backlog=4096)  # noqa: S104 (in a container)
    await stopped.wait()
    server.close()


def main() -> None:
    """Run the proxy on the port in the command line."""
    port, state = int(sys.argv[1]), Path(STATE)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve_proxy(port, state))
    else:
        uvloop.run(serve_proxy(port, state))


if __name__ == "__main__":
    main()
