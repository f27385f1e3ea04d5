"""Lambda's limits, and what to do about each: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""

from __future__ import annotations

import logging
import os
import queue
import resource
import sys
import threading

log = logging.getLogger("mlapp.lambda")

ANSWER = 6 * 1024 * 1024
"""Maximum bytes of a response that does not stream."""
BALANCER_ANSWER = 1024 * 1024
"""Maximum bytes of a response to an Application Load Balancer."""
MEMORY_WARNING_SHARE = 0.9
"""Share of the memory limit above which memory use is logged."""
MARGIN = 0.25
"""Seconds before the timeout at which a running invocation is logged."""


def explain_response_limit(size: int, limit: int) -> str:
    """Explanation for a response that is too large."""
    limit_text = f"{limit // (1024 * 1024)} MB"
    return (
        f"The answer has {size} bytes; Lambda returns at most {limit_text}. Send fewer rows in one "
        "request; or set targets.lambda.streaming and use the function URL; or put the rows in a file in S3."
    )


def read_lambda_memory_mb() -> int:
    """The function's memory in MB; 0 outside Lambda."""
    return int(os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "0"))


def warn_of_lambda_memory() -> bool:
    """Log a warning if the process has used nearly all of the function's memory; returns whether it has.

    Lambda kills the process at the limit without a message.
    """
    limit_mb = read_lambda_memory_mb()
    unit = 1 if sys.platform == "darwin" else 1024
    used_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1024**2
    if not limit_mb or used_mb < MEMORY_WARNING_SHARE * limit_mb:
        return False
    log.warning("The function used %.0f of its %d MB of memory. Raise targets.lambda.memory.", used_mb, limit_mb)
    return True


class DeadlineWatch:
    """Logs an invocation that is about to time out, because Lambda's own message does not say what to change."""

    def __init__(self) -> None:
        self._invocations: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        threading.Thread(target=self._warn_before_deadlines, name="deadline", daemon=True).start()

    def begin(self, remaining: float) -> None:
        """Mark the start of an invocation that has `remaining` seconds left."""
        self._invocations.put(remaining)

    def end(self) -> None:
        """Mark the end of the invocation."""
        self._invocations.put(None)

    def _warn_before_deadlines(self) -> None:
        while True:
            remaining = self._invocations.get()
            if remaining is None:
                continue
            try:
                self._invocations.get(timeout=max(0.0, remaining - MARGIN))
            except queue.Empty:
                log.error(
                    "The invocation is still running %.2f s before its timeout, so Lambda stops it. Raise "
                    "targets.lambda.timeout, or send fewer rows. More targets.lambda.memory gives more CPU.",
                    MARGIN,
                )
                self._invocations.get()
