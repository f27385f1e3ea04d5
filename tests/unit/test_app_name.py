"""The App's name is read from its source, which is not run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlapp.app_name import read_app_name


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("app = App('digits', target='x')", "digits"),
        ("app: App = mlapp.App(name='digits')", "digits"),
        ("from mlapp import App as Application\napp = Application('digits')", "digits"),
        ("NAME = 'digits'\napp = App(NAME)", "digits"),
        ("try:\n    app = App('digits')\nfinally:\n    raise SystemExit", "digits"),
        ("app = App('digits')\n\n@app.model\ndef build(:\n", "digits"),
        ("app = App(f'digits-{1}')", None),
        ("a = App('a')\nb = App('b')", None),
        ("def make():\n    app = App('digits')", None),
        ("", None),
    ],
)
def test_a_name_that_is_written_plainly(tmp_path: Path, source: str, name: str | None) -> None:
    (tmp_path / "app.py").write_text(source)
    assert read_app_name(tmp_path / "app.py") == name


def test_one_of_several_apps(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("a = App('first')\nb = App('second')\n")
    assert read_app_name(tmp_path / "app.py", "b") == "second"


def test_a_notebook(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": ["%matplotlib inline\n", "app = App('digits')"]}]
    (tmp_path / "app.ipynb").write_text(json.dumps({"cells": cells}))
    assert read_app_name(tmp_path / "app.ipynb") == "digits"
    assert read_app_name(tmp_path / "absent.py") is None
