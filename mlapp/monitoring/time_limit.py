"""Limits the time of the app's functions, so that one that blocks delays no alarm and no report forever."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mlapp.errors import UserCodeError

AGAIN = 1.0
"""Seconds after which a function that caught the interrupt is interrupted again."""


class _Interrupt(BaseException):
    """Not an Exception, so that a function that repeats failed attempts does not catch it."""


@contextmanager
def limit_stage_time(title: str, seconds: float) -> Iterator[None]:
    """Interrupt a function of the app in this block after some time. Without effect outside of the main thread, because
    only that one can be interrupted.

    Args:
        title: the function's, as `Stage.title`.

    Raises:
        UserCodeError: the time is over. It names the line at which the function was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_active = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if is_active:
            raise _Interrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    except _Interrupt as error:
        is_active = False
        reason = TimeoutError(f"it did not return within {seconds:g} seconds").with_traceback(error.__traceback__)
        raise UserCodeError(title, reason) from None
    finally:
        is_active = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, handler)
