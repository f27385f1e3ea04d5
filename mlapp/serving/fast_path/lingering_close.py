"""Closes a connection after an answer so that a client that still sends its request can read the answer.

If a connection is closed while data arrives, the kernel resets it, and the client can lose the answer (RFC 9112, 9.6).
So the server first closes only its own direction, and discards what the client sends, like nginx's `lingering_close`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlapp.serving.fast_path.limited_protocol import LimitedProtocol

LONGEST = 30.0
"""Maximum seconds for which the rest of a request is discarded."""
LONGEST_PAUSE = 5.0
"""Maximum seconds between two pieces of it."""
MAX_BODY_BYTES = 256 * 1024 * 1024
"""Maximum bytes of the rest of a body."""
MAX_UNKNOWN_BYTES = 16 * 1024 * 1024
"""Maximum bytes of a request whose end is unknown."""


class LingeringClose:
    """The end of a connection whose client may still send. Closes the connection when the client does, or at a limit.

    Args:
        max_bytes: maximum bytes to discard.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, max_bytes: int) -> None:
        self._transport = transport
        self._loop = loop
        self._end = loop.time() + LONGEST
        self._discarded_bytes = self._bytes_before = 0
        self._max_bytes = max_bytes
        if transport.can_write_eof():  # TLS cannot close one direction; there the length of the answer ends it
            with contextlib.suppress(OSError):  # the client has reset the connection; the transport notices it too
                transport.write_eof()
        self._timer = loop.call_later(LONGEST_PAUSE, self._check_arrivals)

    def discard_data(self, size: int) -> None:
        """Count bytes that are ignored."""
        self._discarded_bytes += size
        if self._discarded_bytes > self._max_bytes:
            self._transport.close()

    def cancel_timer(self) -> None:
        """Call this when the connection is lost."""
        self._timer.cancel()

    def _check_arrivals(self) -> None:
        """Close the connection unless more data has arrived since the last check and time is left."""
        if self._discarded_bytes == self._bytes_before or self._loop.time() >= self._end:
            self._transport.close()
            return
        self._bytes_before = self._discarded_bytes
        self._timer = self._loop.call_later(LONGEST_PAUSE, self._check_arrivals)


class ClosingTransport:
    """The transport of a request in the ASGI application: `close` lets the client read the answer first."""

    __slots__ = ("_protocol", "write")

    def __init__(self, protocol: LimitedProtocol) -> None:
        self._protocol = protocol
        self.write = protocol.transport.write

    def close(self) -> None:
        self._protocol.close_after_answer()

    def is_closing(self) -> bool:
        return self._protocol.is_closing
