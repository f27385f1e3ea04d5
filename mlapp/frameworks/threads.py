"""Chooses the number of threads for predictions.

Numeric libraries start a thread for each core of the machine. In a container that is limited to one of 64 cores, these
threads mostly wait for each other. For a few rows, waking threads takes longer than the computation.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

FEW_ROWS = 256
"""Maximum number of rows for which a single thread is the fastest."""
CGROUP = Path("/sys/fs/cgroup")


@cache
def count_thread_cores() -> int:
    """The number of cores that this process can use, limited by its affinity and its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, math.ceil(_read_thread_quota() or cores)))


def choose_thread_count(rows: int) -> int:
    """The number of threads for a prediction of `rows` rows."""
    return 1 if rows <= FEW_ROWS else count_thread_cores()


def limit_to_one_thread() -> AbstractContextManager[Any]:
    """Limit numeric libraries to one thread in this block, because threads wait for each other on busy cores."""
    try:
        from threadpoolctl import threadpool_limits  # a dependency of scikit-learn
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _read_thread_quota() -> float | None:
    """The core limit of the control group: `cpu.max` in version 2, `cpu.cfs_*` in version 1; None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        microseconds = int((CGROUP / "cpu/cpu.cfs_quota_us").read_text())
        return microseconds / int((CGROUP / "cpu/cpu.cfs_period_us").read_text()) if microseconds > 0 else None
    except (OSError, ValueError):
        return None
