"""Limits the time and the memory of decoding one request, and the bytes of the bodies of all pending requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mlapp.config import Serve
from mlapp.container_memory import read_free_memory
from mlapp.plain_numbers import parse_plain_number
from mlapp.serving.web.problems import HttpError, too_large_body_error

BYTES_PER_BODY = 4
"""Maximum bytes of text that a body's values may refer to, as a multiple of `serve.max_body`. Repeated texts count."""
OBJECT = 8
"""Cells that a value counts for if it becomes a Python object, such as a text or a decimal."""
BYTES_PER_CELL = 2
"""Bytes of a cell in a body of text, at least: `1,`. A cell of a packed format counts as many."""
BODIES = 8
"""Default of `serve.max_bodies`, as a multiple of `serve.max_body`."""
BYTES_PER_BODY_BYTE = 24
"""Bytes of memory for each byte of a body, from its arrival until its answer is sent: its values, its features, the
predictions and the answer. Measured with JSON columns and CSV of two columns of one digit, which take the most."""
DECODERS = 200 * 1024 * 1024
"""Bytes of the libraries in two decoder processes."""
LEAST_BODIES = 1024 * 1024
"""Bytes of bodies that a server always takes: those of many small requests."""
log = logging.getLogger("mlapp.serving")


class CancelledBudgetError(Exception):
    """The client has disconnected."""


class Budget:
    """The cells, bytes and seconds of one request. Every decoder draws on it, from any thread.

    Args:
        timeout: seconds from now until the request is a 504: its body, its decoding and its prediction together.
    """

    __slots__ = ("_cells", "_ends", "_is_cancelled", "_most", "_size", "timeout")

    def __init__(self, settings: Serve, timeout: float) -> None:
        self.timeout = timeout
        self._ends = time.monotonic() + timeout
        self._most = self._cells = settings.max_cells or max(settings.max_body // 2, 1)
        self._size = BYTES_PER_BODY * settings.max_body
        self._is_cancelled = False

    @property
    def remaining(self) -> float:
        """Remaining seconds, at least a millisecond."""
        return max(self._ends - time.monotonic(), 0.001)

    def take(self, cells: int = 0, size: int = 0) -> None:
        """Draw on the budget before values are created.

        Args:
            cells: number of values.
            size: bytes of their texts.

        Raises:
            HttpError: 413, too many; 504, timeout. CancelledBudgetError: the client has left.
        """
        self._cells -= cells
        self._size -= size
        if self._cells < 0:
            raise HttpError(413, f"The body has more than {self._most} values: see serve.max_cells.")
        if self._size < 0:
            raise HttpError(413, "The strings in the body decode to too many bytes: see serve.max_body.")
        self.check()

    def check(self) -> None:
        """Check that the request still needs its result.

        Raises:
            HttpError: 504, the time is up. CancelledBudgetError: the client has disconnected.
        """
        if self._is_cancelled:
            raise CancelledBudgetError
        if time.monotonic() > self._ends:
            raise self.expired_error()

    def cancel(self) -> None:
        """End all work on the budget, because the client has disconnected."""
        self._is_cancelled = True

    def expired_error(self) -> HttpError:
        return HttpError(504, f"The prediction was not ready within {self.timeout:g} seconds.")


class Intake:
    """The bytes of the bodies of all pending requests.

    Attributes:
        limit: maximum bytes. They are fewer in a container with little memory.
    """

    __slots__ = ("_settings", "held", "limit")

    def __init__(self, settings: Serve) -> None:
        self._settings = settings
        self.limit = settings.max_bodies or BODIES * settings.max_body
        self.held = 0

    def fit_to_container(self) -> None:
        """Lower the limit to what fits in the free memory of the container. Call it when the models are loaded.

        `serve.max_bodies` in the settings stays as it is.
        """
        free = read_free_memory()
        if free is None or self._settings.max_bodies:
            return
        share = free // self._settings.workers - DECODERS
        self.limit = max(min(self.limit, share // BYTES_PER_BODY_BYTE), LEAST_BODIES)
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
            HttpError: 503, they exceed the limit; 413, they do so without others. They are not counted.
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
    def most(self) -> int:
        """Bytes that the intake takes at most."""
        return self._intake.limit

    def add(self, size: int) -> None:
        """Count bytes that have arrived. A refused body counts no longer, so that not all that arrive are refused.

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

    def raise_to(self, size: int) -> None:
        """Count the bytes of a body that is larger unpacked.

        Raises:
            HttpError: as for `Intake.take`.
        """
        if size > self._size:
            self.add(size - self._size)

    def release(self) -> int:
        """Subtract what was counted, and return it."""
        with self._lock:
            size, self._size = self._size, 0
            self._intake.release(size)
        return size


def read_request_timeout(headers: Mapping[bytes, bytes], limit: float) -> float:
    """Seconds that the client allows in `X-Request-Timeout`, limited by the server's timeout.

    Raises:
        HttpError: 400, it is not a positive number.
    """
    header = headers.get(b"x-request-timeout")
    if header is None:
        return limit
    seconds = parse_plain_number(header.strip())
    if not seconds:
        raise HttpError(400, "X-Request-Timeout is not a positive number of seconds.")
    return min(seconds, limit)
