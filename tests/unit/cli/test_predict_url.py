"""`mlapp predict --url` sends a file as it is to a server, without the app's code and its libraries."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

HEAVY = {"pandas", "numpy", "sklearn", "fastapi", "kubernetes", "docker", "flytekit"}


class Server(ThreadingHTTPServer):
    """Answers as `mlapp serve` does, and stores the received requests."""

    asked: list[tuple[str, bytes]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.headers["Content-Type"], content))
        is_refused = b"wrong" in content
        problem = {"detail": "1 problem", "errors": [{"detail": "is not a number", "field": "x", "row": 0}]}
        answer = json.dumps(problem if is_refused else {"predictions": [7]}).encode()
        self.send_response(422 if is_refused else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "content", "media_type", "sent"),
    [
        ("rows.csv", b"code\n007\n", "text/csv", b"code\n007\n"),
        ("rows.json", b'[{"x": 1.10}]', "application/json", b'{"inputs":[{"x": 1.10}]}'),
        ("rows.json", b'{"inputs": [{"x": 1}]}', "application/json", b'{"inputs": [{"x": 1}]}'),
        ("rows.jsonl", b'{"x": 1}\n\n{"x": 2}\n', "application/json", b'{"inputs":[{"x": 1},{"x": 2}]}'),
    ],
)
def test_a_file_is_sent_as_it_is(
    mlapp: Callable, tmp_path: Path, server: Server, name: str, content: bytes, media_type: str, sent: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    ran = mlapp("predict", "--url", server.url, "--features", name, cwd=tmp_path)
    assert (ran.code, ran.err, json.loads(ran.out)) == (0, "", [7])
    assert server.asked == [(media_type, sent)]


def test_parquet_is_sent_as_arrow(mlapp: Callable, tmp_path: Path, server: Server) -> None:
    pd.DataFrame({"x": [1, 2]}).to_parquet(tmp_path / "rows.parquet")
    assert mlapp("predict", "--url", server.url, "--features", "rows.parquet", cwd=tmp_path).code == 0
    ((_, content),) = server.asked
    assert pa.ipc.open_stream(content).read_all().to_pydict() == {"x": [1, 2]}


def test_a_refusal_names_the_field(mlapp: Callable, tmp_path: Path, server: Server) -> None:
    (tmp_path / "rows.csv").write_text("x\nwrong\n")
    ran = mlapp("predict", "--url", server.url, "--features", "rows.csv", cwd=tmp_path)
    assert ran.code == 1
    assert "is not a number" in ran.err


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", b"[1,"), ("a.jsonl", b"{}\n[1,"), ("a.csv", b" \n"), ("a.x", b"1")]
)
def test_what_cannot_be_sent_is_reported_before(
    mlapp: Callable, tmp_path: Path, server: Server, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    ran = mlapp("predict", "--url", server.url, "--features", name, cwd=tmp_path)
    assert (ran.code != 0, len(ran.err.splitlines()), server.asked) == (True, 2, []), ran.err


def test_neither_the_app_nor_its_libraries_are_imported(tmp_path: Path, server: Server) -> None:
    (tmp_path / "app.py").write_text("raise RuntimeError")
    (tmp_path / "rows.csv").write_text("x\n1\n")
    code = (
        "import atexit, sys; from mlapp.cli.main import run\n"
        f"atexit.register(lambda: print(sorted({HEAVY!r} & set(sys.modules))))\n"
        f"sys.argv = ['mlapp', 'predict', '--url', {server.url!r}, '--features', 'rows.csv']\n"
        "run()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", "[7]\n[]\n")
