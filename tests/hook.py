"""A receiver of webhooks."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hook:
    """A receiver of webhooks.

    Attributes:
        failures: the statuses and headers of the next answers, before it accepts; a status of 0 gives no answer.
    """

    def __init__(self, port: int = 0) -> None:
        self.bodies: list[Any] = []
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.requests = 0
        hook = self
        self.followed: list[str] = []
        self.authorizations: set[str | None] = set()
        self.is_over = is_over = threading.Event()
        bodies, followed, authorizations = self.bodies, self.followed, self.authorizations

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if self.path.endswith("/moved"):
                    self.send_response(302)
                    self.send_header("location", "/elsewhere")
                    self.end_headers()
                    return
                authorizations.add(self.headers["authorization"])
                hook.requests += 1
                if hook.failures:
                    self._fail(*hook.failures.pop(0))
                    return
                bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def _fail(self, status: int, headers: dict[str, str]) -> None:
                if not status:
                    is_over.wait()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                followed.append(self.path)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """The alerts of that name and status that Alertmanager has sent."""
        sent = [alert for body in self.bodies if isinstance(body, dict) for alert in body.get("alerts", ())]
        return [alert for alert in sent if (alert["labels"]["alertname"], alert["status"]) == (name, status)]
