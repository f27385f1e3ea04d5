"""Measures memory and CPU time of a server's processes with Linux's /proc, and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_STATE, _PARENT, _USER_TIME, _SYSTEM_TIME = 0, 1, 11, 12


def _read_process_stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat, starting with the state, as the name before it can contain spaces. Empty if the
    process has ended.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def list_process_tree(root: int) -> list[int]:
    """A process and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _read_process_stat(int(entry.name))) and fields[_STATE] != "Z":
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    pids = [root]
    for pid in pids:
        pids.extend(children.get(pid, []))
    return pids


def stop_process_tree(root: int, grace: float = 10.0) -> None:
    """End a process and its descendants: by SIGTERM, and after `grace` seconds by SIGKILL."""
    pids = list_process_tree(root)
    _send_signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline and any(
        (fields := _read_process_stat(pid)) and fields[_STATE] != "Z" for pid in pids
    ):
        time.sleep(0.1)
    _send_signal(pids, signal.SIGKILL)


def _send_signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def read_cpu_seconds(root: int) -> float:
    """CPU seconds that a process and its descendants have used."""
    return (
        sum(
            int(f[_USER_TIME]) + int(f[_SYSTEM_TIME])
            for pid in list_process_tree(root)
            if (f := _read_process_stat(pid))
        )
        / _TICKS
    )


def read_resident_bytes(root: int) -> int:
    """Bytes of memory of a process and its descendants, in which shared memory is counted once.

    Anonymous memory is the sum of proportional shares. The pages of a file count as the largest number that one process
    has in memory.
    """
    anonymous = 0
    files: dict[str, int] = {}
    for pid in list_process_tree(root):
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
