"""A server's processes, through Linux's /proc: memory and processor time, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_STATE, _PARENT, _USER_TIME, _SYSTEM_TIME = 0, 1, 11, 12


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; the name before it may hold spaces. Empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[int]:
    """The process and all that descend from it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and fields[_STATE] != "Z":
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def stop(root: int, grace: float = 10.0) -> None:
    """End the tree: politely, and after `grace` seconds not."""
    pids = tree(root)
    _send(pids, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any((fields := _stat(pid)) and fields[_STATE] != "Z" for pid in pids):
        time.sleep(0.1)
    _send(pids, signal.SIGKILL)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def cpu_seconds(root: int) -> float:
    """Processor time that the tree has used so far."""
    return sum(int(f[_USER_TIME]) + int(f[_SYSTEM_TIME]) for pid in tree(root) if (f := _stat(pid))) / _TICKS


def resident_bytes(root: int) -> int:
    """Memory of the tree: what several of its processes share is counted once.

    Anonymous memory is the sum of proportional shares; a file's pages count as the largest part that any one process
    has in memory.
    """
    anonymous = 0
    files: dict[str, int] = {}
    for pid in tree(root):
        mapped: dict[str, int] = {}
        file = ""
        resident = 0
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            name, *rest = line.split()
            if not name.endswith(":"):
                # ADDRESSES PERMISSIONS OFFSET DEVICE INODE [PATH]
                file = rest[4] if rest[3] != "0" else ""
            elif name == "Rss:":
                resident = int(rest[0])
            elif name == "Pss:" and not file:
                anonymous += int(rest[0])
            elif name == "Anonymous:" and file:
                anonymous += int(rest[0])
                mapped[file] = mapped.get(file, 0) + resident - int(rest[0])
        for path, size in mapped.items():
            files[path] = max(files.get(path, 0), size)
    return (anonymous + sum(files.values())) * 1024
