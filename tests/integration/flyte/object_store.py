"""The object store of the small Flyte: signed URLs lead to files of a folder."""

from __future__ import annotations

import base64
import hashlib
import http.server
import urllib.parse
from pathlib import Path
from typing import Any

from tests.integration.flyte.nodes import Nodes


def make_handler(root: Path, nodes: Nodes) -> type[http.server.BaseHTTPRequestHandler]:
    """PUT and GET of files under `root`, and below /api/ the Kubernetes API of the nodes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _path(self) -> Path:
            return root / urllib.parse.unquote(self.path.lstrip("/"))

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            digest = base64.b64encode(hashlib.md5(content).digest()).decode()
            if self.headers["Content-MD5"] != digest:
                self.send_error(400)
                return
            self._path().parent.mkdir(parents=True, exist_ok=True)
            self._path().write_bytes(content)
            self._answer(b"")

        def do_GET(self) -> None:
            if self.path.startswith("/api/"):
                answer = nodes.answer_api(self.path)
                if answer is None:
                    self.send_error(404)
                else:
                    self._answer(answer[1], answer[0])
            elif self._path().is_file():
                self._answer(self._path().read_bytes())
            else:
                self.send_error(404)

        def _answer(self, content: bytes, kind: str = "application/octet-stream") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    return Handler
