"""Whether a process has ended is known for certain, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mlapp import process_identity
from mlapp.process_identity import has_process_ended, read_process_identity

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_running_process_has_not_ended(child):
    assert not has_process_ended(read_process_identity())
    assert not has_process_ended(read_process_identity(child.pid))


def test_a_killed_process_has_ended_before_and_after_its_parent_notices(child):
    identity = read_process_identity(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert has_process_ended(identity)
    child.wait()
    assert has_process_ended(identity)


def test_another_process_with_the_same_number_is_another_process(child):
    *place, start = read_process_identity(child.pid).split(" ")
    assert has_process_ended(" ".join([*place, str(int(start) - 1)]))


@pytest.mark.parametrize("changed", [0, 1])
def test_nothing_is_known_of_another_boot_or_namespace(child, changed):
    parts = read_process_identity(child.pid).split(" ")
    parts[changed] += "x"
    child.kill()
    child.wait()
    assert not has_process_ended(" ".join(parts))


def test_nothing_is_known_without_proc(child, monkeypatch, tmp_path):
    identity = read_process_identity(child.pid)
    child.kill()
    child.wait()
    monkeypatch.setattr(process_identity, "PROC", tmp_path)
    assert read_process_identity() is None
    assert not has_process_ended(identity)


def test_nothing_is_known_of_a_release_without_an_identity():
    assert not has_process_ended("")
