"""File systems that a test mounts. Only root can mount, and in most containers not even root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FORBIDDEN = ("permission denied", "superuser", "only root")


@contextmanager
def mount(folder: Path, *options: object) -> Iterator[None]:
    """Mount a file system on a folder. Skips the test on a machine that does not permit it."""
    done = subprocess.run(["mount", *map(str, options), folder], capture_output=True, text=True)
    if any(reason in done.stderr for reason in FORBIDDEN):
        pytest.skip(f"mounting is not permitted on this machine: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
