"""A proxy before an HTTP server that breaks requests: loses them, answers 500, or loses or cuts the answer."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTS = ("lost", "error", "unanswered", "cut")


@contextmanager
def proxy(target: str, rate: float, seed: int = 0, drop_headers: tuple[str, ...] = ()) -> Iterator[str]:
    """The address of a proxy to `target` that breaks this share of the requests, each in one of the ways.

    With `unanswered` the server has done its work, and the client cannot know.
    """
    host = target.removeprefix("http://")
    choose = random.Random(seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = choose.choice(FAULTS) if choose.random() < rate else ""
            if fault == "lost":
                self.close_connection = True
                return
            if fault == "error":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server = http.client.HTTPConnection(host, timeout=100)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in drop_headers}
            server.request(self.command, self.path, body=body, headers=headers)
            answer = server.getresponse()
            content = answer.read()
            server.close()
            if fault == "unanswered":
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
            self.close_connection = fault == "cut"

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = relay

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Clients that disconnect are expected."""

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
