"""Decodes the largest bodies in separate processes.

Parsing a large body consists of C calls that hold the interpreter's lock for tenths of a second. Meanwhile no other
request is answered. A decoder process has its own lock and a memory limit, and is killed when the request times out or
its client disconnects. It has the schema but none of the app's code: for an app with a feature_loader, it decodes the
raw inputs, and the server's process converts them to features.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlapp.errors import InputError
from mlapp.serving.decoding import transport
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.transport import Outcome
from mlapp.serving.web.budget import Budget, CancelledBudgetError
from mlapp.serving.web.problems import HttpError

log = logging.getLogger("mlapp.serving")
HUGE = 1024 * 1024
"""Minimum bytes of a body that is decoded in a process. Decoding a smaller one takes less time than sending it."""
MAX_CELL_BYTES = 8
"""Maximum bytes of a packed cell. In the body, a cell has at least one byte."""
GRACE = 2.0
"""Seconds that a decoder has to finish after its client has disconnected."""
START = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mlapp.serving.decoding.child import serve_decoder_child
serve_decoder_child()"""
Decode = Callable[..., Any]
"""A module-level function, called with the codec, the body, the budget and further picklable arguments."""


def decode_in_process(codec: Codec, decode: Decode, body: bytes, budget: Budget, *arguments: Any) -> Any:
    """What `decode` makes of a body, a `Part` or a tuple that ends in one; of a huge one in another process.

    Where no process can be started, or what `decode` makes cannot leave it, it is called here.

    Raises:
        HttpError: 400, the decoder crashed; 413, it needs more memory than any request may; what `decode` raises.
        InputError: raised by `decode`. UserCodeError: the feature_loader raised. CancelledBudgetError: the client has
            left.
    """
    return load_process_features(codec, read_in_process(codec, decode, body, budget, *arguments))


def load_process_features(codec: Codec, result: Any) -> Any:
    """The result of `read_in_process` with features, loaded by the app's feature_loader.

    Raises:
        InputError, UserCodeError: as for `Codec.load_part`.
    """
    return (*result[:-1], codec.load_part(result[-1])) if isinstance(result, tuple) else codec.load_part(result)


def read_in_process(codec: Codec, decode: Decode, body: bytes, budget: Budget, *arguments: Any) -> Any:
    """`decode_in_process` without the app's code: the part can hold raw inputs, for `load_process_features`."""
    reader = codec.reader
    if len(body) < HUGE or not _pool.can_start:
        return decode(reader, body, budget, *arguments)
    task = pickle.dumps((reader.recipe, decode, budget, arguments))
    outcome, content = _pool.run_task(reader, task, body, budget)
    if outcome is Outcome.RESULT:
        return content if len(content) > 1 else content[0]
    if outcome is Outcome.REFUSED:
        error = InputError(*content)
        if codec.on_refusal is not None:
            codec.on_refusal(error)
        raise error
    if outcome is Outcome.HTTP:
        raise HttpError(*content)
    return decode(reader, body, budget, *arguments)


class _Decoder:
    """A decoder process and its socket."""

    def __init__(self) -> None:
        self.is_used = False
        """Whether it has decoded a body."""
        self.socket, other = socket.socketpair()
        with other:
            path = json.dumps([place or os.getcwd() for place in sys.path])
            environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            try:
                self.process = subprocess.Popen(  # noqa: S603 - our own interpreter
                    [sys.executable, "-c", START, path],
                    stdin=other.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=environ,
                    start_new_session=True,
                )
            except BaseException:  # also an interrupt: nothing else closes the socket
                self.socket.close()
                raise
        self.socket.settimeout(transport.TURN)

    @property
    def is_alive(self) -> bool:
        """Whether it waits for a task. An idle decoder exits after a while and closes the socket."""
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        return self.process.poll() is None and not waiting.poll(0)

    def has_retired(self, check: Callable[[], None]) -> bool:
        """Wait until it exits; returns whether it exited by itself because it was idle.

        Raises:
            HttpError, CancelledBudgetError: as `check`, while it has not exited.
        """
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(transport.TURN) == 0 and self.is_used
            check()

    def end(self) -> None:
        self.socket.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()


class _GracePeriod:
    """A short grace period for an abandoned task: waiting for it costs less than starting another decoder."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._ends = 0.0

    def check(self) -> None:
        """As `Budget.check`, but raise only after the grace period."""
        try:
            self._budget.check()
        except (HttpError, CancelledBudgetError):
            now = time.monotonic()
            self._ends = self._ends or now + GRACE
            if now > self._ends:
                raise


class _Pool:
    """The idle decoders. There are as many decoders as bodies were decoded concurrently."""

    def __init__(self) -> None:
        self._idle: list[_Decoder] = []
        self._lock = threading.Lock()
        self.can_start = Path(sys.executable or "").name.startswith("python") and hasattr(select, "poll")

    def run_task(self, codec: Codec, task: bytes, body: bytes, budget: Budget) -> tuple[Outcome, Any]:
        """The result of a task.

        Raises:
            HttpError: 400, the decoder crashed; 504, the time is up. CancelledBudgetError: the client has left.
        """
        while (decoder := self._take_decoder()) is not None:
            outcome = self._run_in_decoder(decoder, codec, task, body, budget)
            if outcome is not None:
                return outcome
        return Outcome.UNFIT, None

    def _run_in_decoder(
        self, decoder: _Decoder, codec: Codec, task: bytes, body: bytes, budget: Budget
    ) -> tuple[Outcome, Any] | None:
        """As `run_task`; None if the decoder was idle and exited before it received the task."""
        is_complete = False
        check = _GracePeriod(budget).check
        try:
            transport.send_frame(decoder.socket, task, [body], check)
            outcome = transport.receive_outcome(decoder.socket, codec, MAX_CELL_BYTES * len(body), check)
            is_complete = True
            budget.check()
            return outcome
        except (ConnectionError, EOFError):
            budget.check()
            if decoder.has_retired(budget.check):
                return None
            log.error("a decoder process ended while it read a body of %d bytes", len(body))
            raise HttpError(400, "The body cannot be read: it needs too much memory, or is damaged.") from None
        finally:
            if is_complete:
                decoder.is_used = True
                with self._lock:
                    self._idle.append(decoder)
            else:
                decoder.end()

    def _take_decoder(self) -> _Decoder | None:
        """An idle decoder, or a new one; None if none can be started."""
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.is_alive:
                    return decoder
                decoder.end()
        try:
            return _Decoder()
        except OSError as error:
            self.can_start = False
            log.warning("cannot start a process to decode large bodies, so they can delay other answers: %s", error)
            return None

    def forget_decoders(self) -> None:
        """Forget all decoders after a fork: they belong to the parent."""
        self._idle = []
        self._lock = threading.Lock()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.forget_decoders)
