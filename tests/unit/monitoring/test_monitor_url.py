"""`monitor.url` and `--html`: a place that cannot be used is an error of two lines before anything is done."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlapp.diagnosis import _diagnose_monitored_place
from mlapp.errors import ConfigError
from mlapp.monitoring.recording import open_recording_place
from mlapp.project import Project
from tests.mounts import mount
from tests.unit.monitoring.service import LOANS

FOLDER_OR_BUCKET = "Give a folder, or a bucket: s3://…, gs://… or az://…."
WRONG = {
    "app.py": "app.py: it is not a folder.",
    "file://{root}/app.py": "app.py: it is not a folder.",
    "app.py/below": "app.py: it is not a folder.",
    "s3:/bucket/loans": "'s3:/bucket/loans' has a type that mlapp cannot open.",
    "ftp://me:open-sesame@host/loans": "'ftp://me:***@host/loans' has a type that mlapp cannot open.",
}


@pytest.mark.parametrize("command", ["train", "monitor", "monitor run", "monitor report --html report.html"])
@pytest.mark.parametrize("url", WRONG)
def test_a_place_that_cannot_be_used_is_named_by_every_command(
    url: str, command: str, project: Callable[..., Path], mlapp: Callable[..., Any]
) -> None:
    root = project(LOANS)
    (root / "mlapp.yaml").write_text(f"monitor: {{url: '{url.format(root=root)}'}}")
    ran = mlapp(*command.split())
    assert ran.code == 2
    what, todo = ran.err.splitlines()
    assert what.startswith("Error: mlapp.yaml: monitor.url: ")
    assert what.endswith(WRONG[url])
    assert todo == FOLDER_OR_BUCKET
    assert {file.name for file in root.iterdir()} - {".mlapp", "__pycache__"} == {"app.py", "mlapp.yaml"}
    project_of_root = Project.find(root)
    with pytest.raises(ConfigError):  # so does the server, before it answers
        open_recording_place(project_of_root.settings.monitor, project_of_root.store, root, project_of_root.name)


def test_a_store_that_is_a_file_is_not_an_empty_one(project: Callable[..., Path], mlapp: Callable[..., Any]) -> None:
    root = project(LOANS, mlapp__yaml="store: app.py\n")
    assert (
        mlapp("models", "list").err
        == f"Error: store: mlapp cannot use {root}/app.py: it is not a folder.\n{FOLDER_OR_BUCKET}\n"
    )


def test_doctor_names_a_place_that_cannot_be_written(project: Callable[..., Path]) -> None:
    findings = _diagnose_monitored_place(Project.find(project(LOANS, mlapp__yaml="monitor: {url: /sys/loans}\n")))
    assert (findings.works, findings.what) == (False, "monitor.url")
    assert findings.detail.startswith("The folder of `monitor.url:` cannot use /sys/loans: ")
    assert "set `monitor.url:` in mlapp.yaml to another folder" in findings.todo


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (".", "Error: . is a folder."),
        ("nowhere/report.html", "Error: There is no folder nowhere."),
        ("app.py/report.html", "Error: There is no folder app.py."),
        ("/proc/report.html", "Error: No such file or directory (/proc/report.html)."),
        ("x" * 300, "Error: File name too long"),
    ],
)
def test_a_report_that_cannot_be_written(
    path: str, what: str, project: Callable[..., Path], mlapp: Callable[..., Any]
) -> None:
    project(LOANS)
    ran = mlapp("monitor", "report", "--html", path)
    assert (ran.code in (1, 2), ran.out, len(ran.err.splitlines())) == (True, "", 2)
    assert ran.err.startswith(what)
    assert "disk space" not in ran.err


def test_a_report_replaces_one_of_the_same_name(project: Callable[..., Path], mlapp: Callable[..., Any]) -> None:
    root = project(LOANS)
    (root / "Ünïcode 中").mkdir()
    file = root / "Ünïcode 中" / "Bericht.html"
    file.write_text("old")
    assert mlapp("monitor", "report", "--html", "Ünïcode 中/Bericht.html").out == "Ünïcode 中/Bericht.html\n"
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_report_can_be_a_mounted_file(
    project: Callable[..., Path], mlapp: Callable[..., Any], tmp_path: Path
) -> None:
    root = project(LOANS)
    (root / "report.html").touch()
    (tmp_path / "outside.html").touch()
    with mount(root / "report.html", "--bind", tmp_path / "outside.html"):
        assert mlapp("monitor", "report", "--html", "report.html").code == 0
    assert (tmp_path / "outside.html").read_text().startswith("<!doctype html>")
    assert not list(root.glob(".*.part"))


def test_a_report_that_is_cut_off_leaves_the_earlier_one(
    project: Callable[..., Path], mlapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(LOANS)
    (root / "report.html").write_text("the whole report of yesterday")

    def write_half(file: Path, page: str, **options: Any) -> None:
        file.write_bytes(page.encode()[:99])
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr(Path, "write_text", write_half)
    ran = mlapp("monitor", "report", "--html", "report.html")
    assert (ran.code, "No space left on device" in ran.err) == (1, True)
    assert (root / "report.html").read_text() == "the whole report of yesterday"
    assert not list(root.glob(".*.part"))
