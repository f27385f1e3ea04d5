"""A decoder process: receives bodies and returns features over its standard input, which is a socket."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import socket
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlapp.container_memory import read_free_memory
from mlapp.errors import InputError
from mlapp.serving.decoding import transport
from mlapp.serving.decoding.body_parts import Parts
from mlapp.serving.decoding.codec import Codec, Recipe
from mlapp.serving.decoding.transport import Outcome
from mlapp.serving.web.problems import HttpError

IDLE = 30.0
"""Seconds without work after which a decoder exits, to free its memory."""
GROWTH = 512 * 1024 * 1024
"""Bytes that the decoding of one body may allocate; fewer in a container with little memory."""


class _IdleError(Exception):
    """No task has arrived for a long time."""


def serve_decoder_child() -> None:
    """Decode bodies one after another until the server exits, or sends none for `IDLE` seconds."""
    with contextlib.suppress(OSError):  # if memory is short, Linux kills this process instead of the server
        Path("/proc/self/oom_score_adj").write_text("1000")
    gc.disable()  # its repeated scans of all cells of a body would double the time
    with _open_decoder_child_socket() as server:
        while True:
            server.settimeout(IDLE)
            try:
                task, buffers = transport.receive_frame(server, _end_idle_child)
            except (_IdleError, EOFError, OSError):
                return
            server.settimeout(None)
            if not _decode_child_body(server, task, buffers):
                return
            _free_child_memory()


def _open_decoder_child_socket() -> socket.socket:
    """The socket at standard input, moved to a descriptor of its own, so that closing it closes the connection."""
    server = socket.socket(fileno=os.dup(0))
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return server


def _decode_child_body(server: socket.socket, task: bytes, buffers: list[Any]) -> bool:
    """Decode one body and send the result; returns whether the process can continue.

    Args:
        buffers: holds only the body, which is removed, so that its memory is freed early.
    """
    recipe, decode, budget, arguments = pickle.loads(task)  # noqa: S301 - of our own server
    codec = _make_child_codec(recipe)
    _limit_child_memory()
    sender = transport.Sender(server)
    codec.create_collector = sender.create_collector
    try:
        result = decode(codec, bytes(buffers.pop()), budget, *arguments)
        *others, part = result if isinstance(result, tuple) else (result,)
        sender.send_result(codec, part, others)
    except ConnectionError:
        return False
    except BaseException as error:  # the server waits for an outcome of any error, and then decodes the body itself
        sender.send(*_describe_decoder_child_error(error))
        return isinstance(error, (HttpError, InputError, MemoryError))
    finally:
        codec.create_collector = Parts
    return True


def _describe_decoder_child_error(error: BaseException) -> tuple[Outcome, Any]:
    if isinstance(error, HttpError):
        return Outcome.HTTP, (error.status, error.detail, tuple(error.errors), tuple(error.headers))
    if isinstance(error, InputError):
        return Outcome.REFUSED, (error.found, error.todo)
    if isinstance(error, MemoryError):
        return Outcome.HTTP, (413, "The body needs too much memory.")
    return Outcome.UNFIT, None


@lru_cache(4)
def _make_child_codec(recipe: Recipe) -> Codec:
    return recipe.make_codec()


def _limit_child_memory() -> None:
    """Make allocations beyond `GROWTH` fail. Linux counts writable memory."""
    with contextlib.suppress(ImportError, OSError, ValueError, TypeError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file holds the client's data
        status = Path("/proc/self/status").read_text()
        used = 1024 * int(re.search(r"VmData:\s+(\d+)", status)[1])  # type: ignore[index]
        free = read_free_memory()
        growth = GROWTH if free is None else min(GROWTH, free // 2)  # another decoder may need the other half
        resource.setrlimit(resource.RLIMIT_DATA, (used + growth, resource.RLIM_INFINITY))


def _free_child_memory() -> None:
    """Return the memory of the last body to the system; the C library would keep it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


def _end_idle_child() -> None:
    raise _IdleError
