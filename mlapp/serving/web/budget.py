"""Limits the time and the memory of decoding one request."""

from __future__ import annotations

import time
from collections.abc import Mapping

from mlapp.config import Serve
from mlapp.plain_numbers import parse_plain_number
from mlapp.serving.web.problems import HttpError

TEXT_FACTOR = 4
"""Maximum bytes of text that a body's values may refer to, as a multiple of `serve.max_body`. Repeated texts count."""
CELLS_PER_OBJECT = 8
"""Cells that a value counts for if it becomes a Python object, such as a text or a decimal."""


class CancelledBudgetError(Exception):
    """The client has disconnected."""


class Budget:
    """The cells, bytes and seconds of one request. Every decoder draws on it, from any thread.

    Args:
        timeout: seconds from now until the request is a 504: its body, its decoding and its prediction together.
    """

    __slots__ = ("_cells", "_ends", "_is_cancelled", "_max_cells", "_size", "timeout")

    def __init__(self, settings: Serve, timeout: float) -> None:
        self.timeout = timeout
        self._ends = time.monotonic() + timeout
        self._max_cells = self._cells = settings.max_cells or max(settings.max_body // 2, 1)
        self._size = TEXT_FACTOR * settings.max_body
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
            raise HttpError(413, f"The body has more than {self._max_cells} values: see serve.max_cells.")
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


def read_request_timeout(headers: Mapping[bytes, bytes], limit: float) -> float:
    """Seconds that the client allows in `X-Request-Timeout`, limited by the server's timeout.

    Raises:
        HttpError: 400, it is not a positive number.
    """
    header = headers.get(b"x-request-timeout")
    if header is None:
        return limit
    seconds = parse_plain_number(header.strip())
    if not seconds:  # not a number, or zero
        raise HttpError(400, "X-Request-Timeout is not a positive number of seconds.")
    return min(seconds, limit)
