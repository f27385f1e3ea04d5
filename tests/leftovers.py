"""Each process of the tests has a folder for temporary files of its own, which is removed at its end.

At the end, no process of mlapp may still hold a folder there, and all other folders of mlapp must have been removed.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlapp import temporary_folders

PATIENCE = 30.0
"""Seconds in which the last processes end, beside load."""
KEPT = "mlapp-monitor"
"""The predictions of a bundle without a place for them. They stay for the next start."""


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # pytest-xdist's workers run the tests
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # pytest's folders are kept for a look
    folder = temporary_folders.create_process_folder("tests")
    folder.chmod(0o1777)  # as /tmp: a database's server is a user of its own, and writes there
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


@pytest.fixture(scope="session", autouse=True)
def leave_no_folders() -> Iterator[None]:
    """Fail the last test if mlapp leaves a folder."""
    yield
    end = time.monotonic() + PATIENCE
    while (left := list_left_folders()) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == [], "a process still runs, or a folder was not created by mlapp.temporary_folders"


def list_left_folders() -> list[str]:
    """The folders of mlapp that are left, without those of this process and of killed ones."""
    place = tempfile.gettempdir()
    temporary_folders._remove_abandoned_folders.__wrapped__(place)
    own = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    return sorted(
        entry.name
        for entry in os.scandir(place)
        if entry.name.startswith("mlapp") and entry.name != KEPT and os.path.realpath(entry.path) not in own
    )
