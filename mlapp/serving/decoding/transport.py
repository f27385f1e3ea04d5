"""Sends tasks and features between the server and a decoder process.

A frame is a pickle with out-of-band buffers (PEP 574). Features arrive in parts while they are decoded: none is in
memory twice, and no call of the receiver creates more than some thousands of Python objects.
"""

from __future__ import annotations

import io
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from mlapp.schema.part import Part
from mlapp.serving.decoding.body_parts import Parts
from mlapp.serving.decoding.codec import Codec

TURN = 0.05
"""Seconds after which a waiting sender or receiver checks whether the request still needs the result."""
OBJECTS = 20_000
"""Maximum rows of Python objects in a frame."""
HEADER = struct.Struct("<QI?")
"""Bytes of the pickle, the number of buffers, and whether the buffer is packed cells."""
SIZE = struct.Struct("<Q")
Check = Callable[[], None]


class Outcome(IntEnum):
    """Kind of a frame from a decoder."""

    BEGIN = 0
    """Discards the pieces that were sent before."""
    PIECE = 1
    RESULT = 2
    HTTP = 3
    REFUSED = 4
    UNFIT = 5
    """The result cannot be sent."""


class Sender:
    """Sends the result of one body.

    Args:
        server: the server's socket, without a timeout.
    """

    def __init__(self, server: socket.socket) -> None:
        self._to = server
        self._last: SentParts | None = None

    def create_collector(self, codec: Codec) -> SentParts:
        """A collector that sends the parts of a body. The parts of an earlier collector are discarded."""
        if self._last is not None:
            self.send(Outcome.BEGIN, None)
        self._last = SentParts(codec, self)
        return self._last

    def send(self, outcome: Outcome, content: Any, *, is_packed: bool = False) -> None:
        """Send a frame.

        Raises:
            ConnectionError: the server has ended. pickle.PicklingError and others: the content cannot be pickled.
        """
        buffers: list[pickle.PickleBuffer] = []
        payload = pickle.dumps((outcome, content), protocol=5, buffer_callback=buffers.append)
        send_frame(self._to, payload, [buffer.raw() for buffer in buffers], is_packed=is_packed)

    def send_result(self, codec: Codec, part: Part, others: Sequence[Any]) -> None:
        """Send the result, and its part if the part's pieces are not already sent."""
        if self._last is None or part is not self._last.joined:
            self.create_collector(codec).add(part)
        self.send(Outcome.RESULT, (*others, (part.is_unionml, part.keys)))


class SentParts(Parts):
    """Sends the parts of a body instead of keeping them."""

    def __init__(self, codec: Codec, sender: Sender) -> None:
        super().__init__(codec)
        self._sender = sender
        self.joined: Part | None = None

    def join(self) -> Part:
        self.joined = Part(self.rows)
        return self.joined

    def _keep(self, part: Part) -> None:
        if part.packed is not None:
            self._sender.send(Outcome.PIECE, (part.rows, pickle.PickleBuffer(part.packed), None), is_packed=True)
            return
        features = part.features
        if self._codec.is_raw or not _has_object_columns(features):
            self._sender.send(Outcome.PIECE, (part.rows, None, features))
            return
        for at in range(0, len(features), OBJECTS):
            piece = features.iloc[at : at + OBJECTS] if hasattr(features, "iloc") else features[at : at + OBJECTS]
            self._sender.send(Outcome.PIECE, (len(piece), None, piece))


def send_frame(
    receiver: socket.socket,
    payload: bytes,
    buffers: Sequence[Any],
    check: Check | None = None,
    *,
    is_packed: bool = False,
) -> None:
    """Send a pickle and its buffers.

    Args:
        check: called while the receiver is slow. Its exception ends the sending.

    Raises:
        ConnectionError: the receiver has ended.
    """
    views = [memoryview(buffer) for buffer in buffers]
    head = HEADER.pack(len(payload), len(views), is_packed) + b"".join(SIZE.pack(view.nbytes) for view in views)
    for view in (memoryview(head + payload), *views):
        position, size = 0, view.nbytes
        while position < size:
            try:
                position += receiver.send(view[position:])
            except TimeoutError:
                if check is not None:
                    check()


def receive_frame(source: socket.socket, check: Check, cells: Cells | None = None) -> tuple[bytes, list[Any]]:
    """Receive a pickle and its writable buffers.

    Args:
        cells: receives packed cells.

    Raises:
        EOFError, ConnectionError: the sender has ended.
    """
    length, count, is_packed = HEADER.unpack(_receive_transported_bytes(source, HEADER.size, check))
    sizes = [SIZE.unpack(_receive_transported_bytes(source, SIZE.size, check))[0] for _ in range(count)]
    payload = bytes(_receive_transported_bytes(source, length, check))
    allocate = cells.allocate if is_packed and cells is not None else _reserve_transport_memory
    return payload, [_receive_transported_bytes(source, size, check, allocate) for size in sizes]


def receive_outcome(source: socket.socket, codec: Codec, max_bytes: int, check: Check) -> tuple[Outcome, Any]:
    """The result of a task. Its last item is the part.

    Args:
        max_bytes: maximum expected bytes of packed cells.
    """
    cells, parts = Cells(max_bytes), Parts(codec)
    while True:
        payload, buffers = receive_frame(source, check, cells)
        outcome, content = pickle.Unpickler(  # noqa: S301 - of our own process
            _TurnTakingReader(payload), buffers=buffers
        ).load()
        check()
        if outcome is Outcome.PIECE:
            rows, packed, features = content
            parts.add(Part(rows, packed, features=features))
        elif outcome is Outcome.BEGIN:
            cells, parts = Cells(max_bytes), Parts(codec)
        elif outcome is Outcome.RESULT:
            *others, (is_unionml, keys) = content
            packed_cells = cells.content
            part = parts.join() if packed_cells is None else Part(parts.rows, packed_cells)
            part.is_unionml, part.keys = is_unionml, keys
            return outcome, (*others, part)
        else:
            return outcome, content


class _TurnTakingReader(io.BytesIO):
    """A pickle whose reader calls Python code for each frame of 64 kB, so that other threads can run.

    Otherwise they would wait until all objects of a large pickle exist.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size)


class Cells:
    """Collects packed cells. Memory is reserved for all of them; the system allocates it as it is written."""

    def __init__(self, max_bytes: int) -> None:
        self._memory = _reserve_transport_memory(max_bytes)
        self._size = 0
        self._is_contiguous = True

    def allocate(self, size: int) -> memoryview:
        """Memory for the next cells: after the previous ones, or elsewhere if not enough is reserved."""
        if self._size + size > len(self._memory):
            self._is_contiguous = False
            return _reserve_transport_memory(size)
        self._size += size
        return self._memory[self._size - size : self._size]

    @property
    def content(self) -> memoryview | None:
        """All received cells; None if there are none, or if they are not contiguous."""
        return self._memory[: self._size] if self._is_contiguous and self._size else None


def _has_object_columns(features: Any) -> bool:
    """Whether features hold a Python object per value, so that they are sent in several frames."""
    if isinstance(features, list):
        return True
    if hasattr(features, "iloc"):
        return any(dtype.kind == "O" for dtype in features.dtypes)
    return getattr(getattr(features, "dtype", None), "kind", "") == "O"


def _reserve_transport_memory(size: int) -> memoryview:
    """Writable memory, which the system allocates on first write."""
    import numpy as np

    return np.empty(size, dtype="uint8").data


def _receive_transported_bytes(
    source: socket.socket, size: int, check: Check, allocate: Callable[[int], memoryview] = _reserve_transport_memory
) -> memoryview:
    """Receive exactly `size` bytes."""
    view = allocate(size)
    position = 0
    while position < size:
        try:
            count = source.recv_into(view[position:])
        except TimeoutError:
            check()
            continue
        if not count:
            raise EOFError
        position += count
    return view
