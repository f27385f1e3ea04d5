"""The thread of one model, which runs a call with as little overhead as possible.

`ThreadPoolExecutor` creates a future for each call and settles it afterwards, with several locks. The model is idle
meanwhile: before a call the event loop holds the interpreter's lock, and after it the thread does, while answers wait.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeAlias

log = logging.getLogger("mlapp.serving")
Calls: TypeAlias = "queue.SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None]"


class ModelThread(Executor):
    """Runs calls one after another in one thread, which starts with the first call.

    As with `ThreadPoolExecutor`, the end of the interpreter waits for a running call.
    """

    def __init__(self) -> None:
        self._calls: Calls = queue.SimpleQueue()  # an attribute look-up, because gevent replaces it after the import
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def run_in_model_thread(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function without a future. An error is logged.

        Raises:
            RuntimeError: the thread was shut down.
        """
        if self._is_closed:
            raise RuntimeError("The model's thread was shut down.")
        self._calls.put((function, arguments))
        if self._thread is None:
            self._thread = threading.Thread(
                target=_run_model_thread_calls, args=(self._calls,), name="model", daemon=True
            )
            self._thread.start()
            weakref.finalize(self, _end_thread, self._calls, self._thread)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.run_in_model_thread(_run_for_future, future, fn, args, kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._is_closed = True
        if cancel_futures:
            _cancel_model_thread_calls(self._calls)
        self._calls.put(None)
        if wait and self._thread is not None:
            self._thread.join()


def _run_model_thread_calls(calls: Calls) -> None:
    """Run calls until a None."""
    while (call := calls.get()) is not None:
        try:
            call[0](*call[1])
        except BaseException:  # the thread must survive to run later calls
            log.exception("a call in the model's thread failed")
        del call  # it refers to the request's features


def _run_for_future(future: Future[Any], function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args, **kwargs)
    except BaseException as error:  # the caller waits for the future, whatever the error
        future.set_exception(error)
    else:
        future.set_result(result)


def _cancel_model_thread_calls(calls: Calls) -> None:
    try:
        while True:
            call = calls.get_nowait()
            if call is not None and call[0] is _run_for_future:
                call[1][0].cancel()
    except queue.Empty:
        return


def _end_thread(calls: Calls, thread: threading.Thread) -> None:
    """End the thread of an executor that is garbage, or when the interpreter exits."""
    calls.put(None)
    if threading.current_thread() is not thread and not threading.main_thread().is_alive():
        thread.join()
