"""One of several processes of a server. Started by `workers.Supervisor`; not by hand."""

from __future__ import annotations

import logging
import os
import socket
import sys

import msgspec

from mlapp.errors import MlappError
from mlapp.serving.serve_spec import ServeSpec


def run_worker() -> int:
    """Read the plan from standard input, serve, and report through the pipe when the server has started."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    listener, pipe = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    plan = msgspec.json.decode(_read_first_line(), type=ServeSpec)

    def report_ready(lines: list[str]) -> None:
        with os.fdopen(pipe, "wb") as file:
            file.write(msgspec.json.encode(lines))

    try:
        from mlapp.serving.process.launch import launch_server

        launch_server(plan.with_fresh_settings() if plan.reload else plan, listener, report_ready, has_parent=True)
    except MlappError as error:
        print(f"Error: {error.what}\n{error.todo}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _read_first_line() -> bytes:
    """Byte by byte: what is buffered past the line would hide the end of the input."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(1)
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(run_worker())
