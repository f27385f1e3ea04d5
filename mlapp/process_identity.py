"""The identity of a process, so that a later one on the same machine can tell whether it has ended or was killed."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def read_process_identity(pid: int | None = None) -> str | None:
    """Boot, process namespace, number and start time of a process; by default of this one.

    A number alone does not identify a process, because the system uses it again.

    Returns:
        None if the process is not visible, or on a system without `/proc`.
    """
    number = os.getpid() if pid is None else pid
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(PROC / "self/ns/pid")
        # The name, in parentheses, can contain spaces. The state follows it, and 18 fields later the start time.
        state, *fields = (PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else f"{boot} {namespace} {number} {fields[18]}"


def has_process_ended(identity: str) -> bool:
    """Whether a process has certainly ended. False for one of another machine or namespace, and if it is not known."""
    own, parts = read_process_identity(), identity.split(" ")
    if own is None or own.split(" ")[:2] != parts[:2]:
        return False
    number = parts[2]
    if read_process_identity(int(number)) == identity:
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # a process of another user, which `/proc` can hide
        return read_process_identity(int(number)) is not None
    return True
