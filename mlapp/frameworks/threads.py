"""How many threads a model may use to predict.

Numeric libraries start a thread for each core of the machine: in a container that may use one of 64 cores they
spend their time waiting for each other. And for a few rows, waking threads takes longer than the work.
"""

from __future__ import annotations

import math
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

FEW_ROWS = 256
"""Up to so many rows, one thread is the fastest."""
CGROUP = Path("/sys/fs/cgroup")


@cache
def count_cores() -> int:
    """The cores that this process may use: by its affinity, and by its container's limit."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(_read_cpu_quota() or allowed)))


def threads_for_rows(rows: int) -> int:
    """The threads with which to predict so many rows."""
    return 1 if rows <= FEW_ROWS else count_cores()


def limit_to_one_thread() -> AbstractContextManager[Any]:
    """Numeric libraries use one thread in this block: theirs wait for each other where the cores have other work."""
    try:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn
    except ImportError:
        return nullcontext()
    limits: AbstractContextManager[Any] = threadpool_limits(1)
    return limits


def _read_cpu_quota() -> float | None:
    """The cores of the control group: `cpu.max` of version 2, `cpu.cfs_*` of version 1; None without a limit."""
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        allowed = int((CGROUP / "cpu/cpu.cfs_quota_us").read_text())
        return allowed / int((CGROUP / "cpu/cpu.cfs_period_us").read_text()) if allowed > 0 else None
    except (OSError, ValueError):
        return None
