"""The thread of a model: one call at a time, in order."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import CancelledError

import pytest

from mlapp.serving.inference.model_thread import ModelThread


def test_calls_run_in_order_in_one_thread(caplog):
    thread, found = ModelThread(), []
    thread.run_in_model_thread(lambda: found.append(threading.current_thread()))
    thread.run_in_model_thread(lambda: 1 / 0)
    assert thread.submit(lambda: [*found, threading.current_thread()]).result() == [found[0], found[0]]
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(ZeroDivisionError):
        thread.submit(lambda: 1 / 0).result()
    thread.shutdown()
    assert not found[0].is_alive()
    with pytest.raises(RuntimeError, match="shut down"):
        thread.submit(int)


def test_a_shutdown_cancels_the_calls_that_have_not_started():
    thread, started, may_end = ModelThread(), threading.Event(), threading.Event()
    running = thread.submit(lambda: (started.set(), may_end.wait()))
    started.wait()
    waiting = thread.submit(int)
    thread.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(CancelledError):
        waiting.result()
    may_end.set()
    assert running.result() == (None, True)


def test_the_end_of_the_program_waits_for_a_running_call():
    program = """if True:
        import time
        from mlapp.serving.inference.model_thread import ModelThread
        thread = ModelThread()
        thread.run_in_model_thread(lambda: (time.sleep(0.1), print("done")))
    """
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "done\n"
