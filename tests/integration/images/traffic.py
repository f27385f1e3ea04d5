"""Count what goes to a registry: the bytes of each kind of request."""

from __future__ import annotations

import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|PATCH) (/v2/\S*) HTTP/1\.1\r\n")


@dataclass
class Traffic:
    """What has passed since the last `reset`: bytes to the registry, and the requests, as (method, path)."""

    host: str = ""
    sent: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        self.sent = 0
        self.requests.clear()


@contextmanager
def count_traffic(port: int) -> Iterator[Traffic]:
    """A way to the server at a port of this machine that counts; its address is the result's `host`."""
    traffic = Traffic()

    def pass_on(source: socket.socket, sink: socket.socket, *, is_counted: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(1 << 18):
                if is_counted:
                    traffic.sent += len(chunk)
                    traffic.requests += [(each[1].decode(), each[2].decode()) for each in REQUEST.finditer(chunk)]
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    class Passing(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=pass_on, args=(server, self.request), kwargs={"is_counted": False})
                back.start()
                pass_on(self.request, server, is_counted=True)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Passing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        traffic.host = f"127.0.0.1:{server.server_address[1]}"
        yield traffic
        server.shutdown()
