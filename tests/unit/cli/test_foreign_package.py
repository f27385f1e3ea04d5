"""`mlapp` on PyPI is an unrelated package with a module of the same name: mlapp reports it if it is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mlapp as package


def test_doctor_names_it(mlapp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "mlapp-0.1.6.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlapp\nVersion: 0.1.6.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    ran = mlapp("doctor", cwd=tmp_path)
    assert "the unrelated package 'mlapp' 0.1.6.1 is installed too" in ran.out + ran.err
    assert "pip uninstall -y mlapp" in ran.out + ran.err


@pytest.mark.parametrize("content", ["", "from mlapp.config import settings, environment_services"])
def test_a_command_says_so_where_its_files_are_in_place_of_ours(content: str, tmp_path: Path) -> None:
    (tmp_path / "mlapp").mkdir()
    for ours in Path(package.__file__).parent.iterdir():
        (tmp_path / "mlapp" / ours.name).symlink_to(ours)
    (tmp_path / "mlapp/__init__.py").unlink()
    (tmp_path / "mlapp/__init__.py").write_text(content)
    # What its console script does.
    done = subprocess.run(
        [sys.executable, "-c", "from mlapp.cli import cli"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 2), done.stderr
    assert "belongs to another package" in done.stderr
