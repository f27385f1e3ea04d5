"""Temporary folders end with their process, and those of killed processes with the next start."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlapp.temporary_folders import open_temporary_folder
from tests.preloaded import ROOT, Fork, preload_commands
from tests.servers import wait

CREATE = "from mlapp.temporary_folders import *; folder = create_process_folder('model', keep_after_exec={keep}); "
WAIT = "print(folder, flush=True); input()"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder for temporary files of the processes of a test."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def start_process(place: Path, script: str, *, keep: bool = False) -> subprocess.Popen[str]:
    """Start a process that creates a folder and runs a script. Returns when it has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", CREATE.format(keep=keep) + script],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_folder_is_removed_when_its_process_exits(place: Path) -> None:
    process = start_process(place, WAIT)
    assert [folder.name[:16] for folder in place.iterdir()] == ["mlapp-tmp-model-"]
    process.communicate("\n")
    assert list(place.iterdir()) == []


def test_the_end_of_a_forked_child_leaves_the_folder(place: Path) -> None:
    process = start_process(place, "import os, sys; child = os.fork(); child or sys.exit(); os.wait(); " + WAIT)
    assert len(list(place.iterdir())) == 1
    process.communicate("\n")
    assert list(place.iterdir()) == []


def test_the_next_process_removes_the_folder_of_a_killed_one_alone(place: Path) -> None:
    (place / "mlapp-monitor").mkdir()  # the predictions of a bundle, which stay
    running, killed = start_process(place, WAIT), start_process(place, WAIT)
    killed.kill()
    killed.communicate()
    assert len(list(place.iterdir())) == 3
    start_process(place, WAIT).communicate("\n")
    assert len(list(place.iterdir())) == 2, "the running process keeps its folder"
    running.communicate("\n")
    assert [folder.name for folder in place.iterdir()] == ["mlapp-monitor"]


def test_the_next_process_finishes_without_what_a_killed_one_left_in_a_project(tmp_path: Path, monkeypatch) -> None:
    script = f"""
import os, signal
from pathlib import Path
from mlapp.temporary_folders import open_temporary_folder

with open_temporary_folder("bundle", Path({str(tmp_path)!r})) as folder:
    (folder / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert [folder.name[:18] for folder in tmp_path.iterdir()] == [".mlapp-tmp-bundle-"]
    with open_temporary_folder("bundle", tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]
        folder.rename(tmp_path / "kept")
    assert list(tmp_path.iterdir()) == [tmp_path / "kept"]


def test_the_last_of_several_processes_removes_the_folder_that_they_inherited(place: Path) -> None:
    program = (
        "import os, subprocess, sys; from pathlib import Path; "
        "from mlapp.temporary_folders import share_inherited_folder; "
        "folder, *more = sys.argv[1:]; share_inherited_folder(Path(folder)); "
        "second = [sys.executable, '-c', *more, folder]; "
        "more and subprocess.Popen(second, stdout=subprocess.PIPE).stdout.readline(); "
        "print(flush=True); more or input()"
    )
    replace = "import os, sys; program = {program!r}; "
    replace += "os.execv(sys.executable, [sys.executable, '-c', program, str(folder), program])"
    first = start_process(place, replace.format(program=program), keep=True)
    assert first.wait(60) == 0
    assert len(list(place.iterdir())) == 1, "the second process runs"
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    wait(lambda: not list(place.iterdir()), place)


def test_a_forked_child_does_not_keep_a_shared_folder(place: Path) -> None:
    """Not even one that has not closed its copy of the lock yet."""
    program = (
        "import os, sys; from pathlib import Path; from mlapp.temporary_folders import share_inherited_folder; "
        "os.register_at_fork(after_in_child=lambda: (os.close(1), input(), os._exit(0))); "
        "share_inherited_folder(Path(sys.argv[1])); os.fork(); print(flush=True)"
    )
    replace = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', {program!r}, str(folder)])"
    first = start_process(place, replace.format(program=program), keep=True)
    try:
        assert first.wait(60) == 0
        assert list(place.iterdir()) == []
    finally:
        first.communicate("\n")


def test_a_program_that_replaces_the_process_keeps_the_folder(place: Path) -> None:
    replaced = start_process(place, "import os; os.execlp('sh', 'sh', '-c', 'echo; read line')", keep=True)
    start_process(place, WAIT).communicate("\n")
    assert len(list(place.iterdir())) == 1
    replaced.communicate("\n")
    start_process(place, WAIT).communicate("\n")
    assert list(place.iterdir()) == []


def test_a_place_that_cannot_lock_folders_has_them_all_the_same(place: Path, monkeypatch) -> None:
    def refuse_lock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EBADF, "NFS locks only files that are open for writing")

    killed = start_process(place, WAIT)
    killed.kill()
    killed.communicate()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setattr(fcntl, "flock", refuse_lock)
    with open_temporary_folder("check") as folder:
        assert folder.parent == place
        assert len(list(place.iterdir())) == 2, "nobody can know whether the other one is in use"
    assert not folder.exists()


def test_a_place_that_cannot_be_listed_has_folders_all_the_same(place: Path, monkeypatch) -> None:
    def refuse_listing(path: str) -> None:
        raise PermissionError(errno.EACCES, "no permission to list", path)

    monkeypatch.setattr("tempfile.tempdir", str(place))
    with monkeypatch.context() as context:
        context.setattr(os, "scandir", refuse_listing)  # root could list every folder
        with open_temporary_folder("check") as folder:
            (folder / "file").touch()
            context.undo()
    assert not folder.exists()


ENDLESS = """
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlapp import App
from mlapp.temporary_folders import open_temporary_folder

app = App("endless", target="y")


@app.data_reader
def read() -> pd.DataFrame:
    with open_temporary_folder("download"):
        print("reading", flush=True)
        with open("pipe") as pipe:  # nobody writes
            pipe.read()


app.model(LinearRegression)
"""


def test_a_command_that_is_stopped_leaves_nothing(project, place: Path, tmp_path: Path) -> None:
    root = project(ENDLESS)
    os.mkfifo(root / "pipe")
    environment = {**os.environ, "TMPDIR": str(place)}
    with (tmp_path / "log").open("wb") as log:
        command: Fork = preload_commands().start(["mlapp", "train"], root, environment, log)
    writing = os.open(root / "pipe", os.O_WRONLY)  # waits until the command reads
    try:
        assert [folder.name[:19] for folder in place.iterdir()] == ["mlapp-tmp-download-"]
        command.terminate()
        assert command.wait(60) == 128 + signal.SIGTERM
    finally:
        os.close(writing)
        command.kill()
    assert list(place.iterdir()) == []
