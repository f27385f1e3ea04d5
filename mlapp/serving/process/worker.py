"""A spawned worker of a server. Started by `worker_process.spawn_worker`, not by users."""

from __future__ import annotations

import os
import socket
import sys

import msgspec

from mlapp.errors import MlappError
from mlapp.printable_text import set_up_logging
from mlapp.serving.process.worker_process import print_worker_process_failure, serve_in_worker
from mlapp.serving.serve_spec import ServeSpec


def run_worker() -> int:
    """Read the plan from standard input, and serve."""
    set_up_logging()
    listener, pipe = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    plan = msgspec.json.decode(_read_worker_plan(), type=ServeSpec)
    try:
        plan = plan.with_fresh_settings() if plan.reload else plan
    except MlappError as error:
        return print_worker_process_failure(error)
    return serve_in_worker(plan, listener, pipe, parent=0)


def _read_worker_plan() -> bytes:
    """The first line of standard input. Read byte by byte: a buffer would hide the end of the input from the server."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(1)
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(run_worker())
