"""A double of Lambda's Runtime API: it provides events to a function and stores the answers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html. AWS's own client is tested against it too.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "/2018-06-01/runtime/"
LARGEST = 6 * 1024 * 1024 + 100


@dataclass(frozen=True)
class Posted:
    """What the function posted: `response`, `error` or `init`, with its headers, body and trailers."""

    kind: str
    body: bytes
    headers: dict[str, str]
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def value(self) -> Any:
        return json.loads(self.body)


class RuntimeDouble:
    """Events go in by `invoke`, which waits for the answer."""

    def __init__(self, timeout: float = 30.0) -> None:
        self.timeout = timeout
        self._events: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._answers: dict[str, queue.SimpleQueue[Posted]] = {"init": queue.SimpleQueue()}
        self._count = 0
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                assert self.path == f"{PREFIX}invocation/next", self.path
                event = double._events.get()
                if event is None:
                    self._answer(500, b"the double ends")
                    return
                identity, body = event
                headers = {
                    "Content-Type": "application/json",  # without it AWS's client crashes
                    "Lambda-Runtime-Aws-Request-Id": identity,
                    "Lambda-Runtime-Deadline-Ms": str(int((time.time() + double.timeout) * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:123456789012:function:sums",
                    "Lambda-Runtime-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793",
                }
                self._answer(200, body, headers)

            def do_POST(self) -> None:
                *_, identity, kind = self.path.removeprefix(PREFIX).split("/")
                body, trailers = self._read_body()
                if len(body) > LARGEST and "streaming" not in self.headers.values():
                    self._answer(413, b'{"errorType": "RequestEntityTooLarge"}')
                    return
                posted = Posted("init" if identity == "init" else kind, body, dict(self.headers), trailers)
                self._answer(202, b'{"status": "OK"}')
                double._answers[identity].put(posted)

            def _read_body(self) -> tuple[bytes, dict[str, str]]:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"])), {}
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                lines = iter(lambda: self.rfile.readline().decode().strip(), "")
                return body, dict(line.split(": ", 1) for line in lines)

            def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"127.0.0.1:{self.server.server_address[1]}"

    def invoke(self, event: Any, timeout: float = 60.0) -> Posted:
        """The answer to an event: a value, or JSON as bytes."""
        self._count += 1
        identity = f"request-{self._count}"
        self._answers[identity] = queue.SimpleQueue()
        self._events.put((identity, event if isinstance(event, bytes) else json.dumps(event).encode()))
        return self._answers[identity].get(timeout=timeout)

    def init_error(self, timeout: float = 60.0) -> Posted:
        """Why the function could not start."""
        return self._answers["init"].get(timeout=timeout)

    def end(self) -> None:
        """Answer the function's next question with an error, which ends its loop."""
        self._events.put(None)


@contextmanager
def runtime_double(timeout: float = 30.0) -> Iterator[RuntimeDouble]:
    """A double on a free port. `timeout` is the function's."""
    double = RuntimeDouble(timeout)
    thread = threading.Thread(target=double.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        double.end()
        double.server.shutdown()
        double.server.server_close()
