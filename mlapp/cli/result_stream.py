"""Keeps stdout for results: what the app's code and its libraries print while a command runs goes to stderr.

`print` in a predictor, or a library's progress in another process, would otherwise be part of the JSON of
`mlapp predict` or of the objects of `mlapp deploy --dry-run`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_reserved: list[tuple[TextIO, TextIO]] = []
"""While stdout is reserved, `sys.stdout` of before and the stream of results."""


def get_result_stream() -> TextIO:
    """The stream for results of a command: the process's own stdout."""
    return _reserved[-1][1] if _reserved else sys.stdout


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Send what this process and its children write to stdout to stderr, except results.

    Redirects the file descriptor too, because libraries in C and worker processes use it. Does nothing without a stdout
    or stderr.
    """
    stdout, stderr = sys.stdout, sys.stderr
    if stdout is None or stderr is None or _reserved:
        yield
        return
    results = stdout
    if _has_descriptor(stdout, 1) and _has_descriptor(stderr, 2):  # otherwise, a test or a program replaced a stream
        stdout.flush()
        results = open(os.dup(1), "w", encoding=stdout.encoding, errors=stdout.errors)  # noqa: SIM115
        os.dup2(2, 1)
    _reserved.append((stdout, results))
    sys.stdout = stderr
    try:
        yield
    finally:
        release_stdout()


def release_stdout() -> None:
    """End the reservation early, for a command whose own log goes to stdout."""
    if not _reserved:
        return
    stdout, results = _reserved.pop()
    sys.stdout = stdout
    if results is not stdout:
        with suppress(OSError):
            stdout.flush()  # a library can have written to `sys.__stdout__`
        _flush_c_output()
        os.dup2(results.fileno(), 1)
        with suppress(BrokenPipeError):  # was reported when the result was printed
            results.close()


def _has_descriptor(stream: TextIO, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False


def _flush_c_output() -> None:
    """Write what libraries in C have printed and not written yet."""
    if (ctypes := sys.modules.get("ctypes")) is not None:
        ctypes.CDLL(None).fflush(None)
