"""Reads how much memory the container of this process may use, and how much of it is left.

If the container uses more, the kernel kills one of its processes, and on Kubernetes usually all of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

CGROUP = Path("/sys/fs/cgroup")
PROCESSES = Path("/proc")


class _Files(NamedTuple):
    """Files of one version of control groups. `prefix` begins the names of sums over subgroups in the file `stat`."""

    limit: str
    used: str
    stat: str
    prefix: str


CGROUP_VERSIONS = (
    _Files("memory.max", "memory.current", "memory.stat", ""),
    _Files("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_"),
)
UNLIMITED = 1 << 60
"""Bytes that no machine has: version 1 has a number near 2^63 where there is no limit, and version 2 `max`."""


def count_sibling_workers() -> int:
    """The processes with this one's command line and parent, such as gunicorn's workers, and this one."""
    try:
        own = (PROCESSES / "self/cmdline").read_bytes()
        parent = os.getppid()
        children = (PROCESSES / f"{parent}/task/{parent}/children").read_text().split()
    except OSError:  # another system, or a parent outside of the container
        return 1
    count = 0
    for child in children:
        try:
            count += (PROCESSES / child / "cmdline").read_bytes() == own
        except OSError:  # it has just ended
            continue
    return max(count, 1)


def read_memory_limit() -> int | None:
    """Bytes that the container may use; None without a limit."""
    for files in CGROUP_VERSIONS:
        try:
            limit = int((CGROUP / files.limit).read_text())
        except (OSError, ValueError):
            continue
        return limit if limit < UNLIMITED else None
    return None


def read_free_memory() -> int | None:
    """Bytes that the container may still use; None without a limit. Cached files count as free."""
    limit = read_memory_limit()
    if limit is None:
        return None
    for files in CGROUP_VERSIONS:
        try:
            used = int((CGROUP / files.used).read_text())
            stat = (CGROUP / files.stat).read_text()
        except (OSError, ValueError):
            continue
        cached = re.findall(rf"^{files.prefix}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
        return max(limit - used + sum(map(int, cached)), 0)
    return None
