"""Reads how much memory the container of this process may use, and how much of it is left.

If the container uses more, the kernel kills one of its processes, and on Kubernetes usually all of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

CGROUP = Path("/sys/fs/cgroup")


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
