"""Limits the bytes of the bodies of all pending requests."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mlapp.config import Serve
from mlapp.container_memory import count_sibling_workers, read_free_memory
from mlapp.serving.web.problems import HttpError, too_large_body_error

BYTES_PER_CELL = 2
"""Minimum bytes of a cell in a body of text: `1,`. A cell of a packed format also counts as two bytes."""
MAX_BODIES_FACTOR = 8
"""Default of `serve.max_bodies`, as a multiple of `serve.max_body`."""
MEMORY_PER_BODY_BYTE = 24
"""Bytes of memory for each byte of a body, from its arrival until its answer is sent: its values, its features, the
predictions and the answer. Measured with JSON columns and CSV of two columns of one digit, which take the most."""
DECODER_BYTES = 200 * 1024 * 1024
"""Bytes of the libraries in two decoder processes."""
MIN_LIMIT = 1024 * 1024
"""Bytes of bodies that a server always accepts, which suffice for many small requests."""
log = logging.getLogger("mlapp.serving")


class Intake:
    """The bytes of the bodies of all pending requests.

    Attributes:
        limit: maximum bytes. They are fewer in a container with little memory.
    """

    __slots__ = ("_settings", "held", "limit")

    def __init__(self, settings: Serve) -> None:
        self._settings = settings
        self.limit = settings.max_bodies or MAX_BODIES_FACTOR * settings.max_body
        self.held = 0

    def fit_to_container(self) -> None:
        """Lower the limit to what fits in the free memory of the container. Call it when the models are loaded.

        `serve.max_bodies` in the settings stays as it is.
        """
        free = read_free_memory()
        if free is None or self._settings.max_bodies:
            return
        # A WSGI site's server has workers, too, which `serve.workers` does not know.
        workers = max(self._settings.workers, count_sibling_workers())
        share = free // workers - DECODER_BYTES
        self.limit = max(min(self.limit, share // MEMORY_PER_BODY_BYTE), MIN_LIMIT)
        if self.limit < self._settings.max_body:
            log.warning(
                "The container's free memory, %d MB, suffices for bodies of %.1f MB: larger ones get 413, although "
                "serve.max_body is %.1f MB. Raise the container's memory limit, or lower serve.max_body.",
                free / 1e6,
                self.limit / 1e6,
                self._settings.max_body / 1e6,
            )

    def take(self, size: int) -> None:
        """Count received bytes.

        Raises:
            HttpError: 503, all bodies together exceed the limit; 413, this one alone does. It is not counted.
        """
        if size > self.limit:
            raise too_large_body_error(self.limit)
        if self.held + size > self.limit:
            raise self.make_full_error()
        self.held += size

    def release(self, size: int) -> None:
        """Subtract bytes that are no longer held."""
        self.held -= size

    def make_full_error(self) -> HttpError:
        detail = "The server has reached its limit of request bodies (serve.max_bodies). Try again in a second."
        return HttpError(503, detail, headers=((b"retry-after", b"1"), (b"connection", b"close")))


class HeldBody:
    """The bytes of one request's body in the intake, from its arrival until its answer.

    Args:
        lock: held while the intake changes, where several threads use it.
    """

    __slots__ = ("_intake", "_lock", "_size")

    def __init__(self, intake: Intake, lock: AbstractContextManager[Any] | None = None) -> None:
        self._intake = intake
        self._lock = lock or nullcontext()
        self._size = 0

    @property
    def limit(self) -> int:
        """Maximum bytes of all bodies."""
        return self._intake.limit

    def add(self, size: int) -> None:
        """Count received bytes. If the body is refused, its earlier bytes are subtracted, so that others are accepted.

        Raises:
            HttpError: as for `Intake.take`.
        """
        with self._lock:
            try:
                self._intake.take(size)
            except HttpError:
                self._intake.release(self._size)
                self._size = 0
                raise
            self._size += size

    def count_at_least(self, size: int) -> None:
        """Count a body as `size` bytes if it is larger decompressed than received.

        Raises:
            HttpError: as for `Intake.take`.
        """
        if size > self._size:
            self.add(size - self._size)

    def count_answer(self, size: int) -> None:
        """Count an answer until it is sent, if it takes more memory than its request's body counts for.

        Raises:
            HttpError: 503, it exceeds the limit together with other requests.
        """
        share = size // MEMORY_PER_BODY_BYTE - self._size
        if share > 0:
            others = self._intake.held - self._size
            if others > 0 and self._intake.held + share > self._intake.limit:
                raise self._intake.make_full_error()
            with self._lock:
                self._intake.held += share
                self._size += share

    def release(self) -> int:
        """Subtract what was counted, and return it."""
        with self._lock:
            size, self._size = self._size, 0
            self._intake.release(size)
        return size
