"""Templates: each gives a project that trains, and whose own test passes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EXPECTED = {".gitignore", "README.md", "mlapp.yaml", "requirements.txt", "requirements-dev.txt", "test_app.py"}


def mixed_table(target: str) -> pd.DataFrame:
    random, rows = np.random.default_rng(0), 120
    table = pd.DataFrame(
        {
            "age": random.integers(18, 80, rows),
            "income": random.normal(50_000, 9_000, rows).round(2),
            "city": random.choice(["Zürich", "Genève", "Bern"], rows),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(random.integers(0, 1500, rows), "D"),
            "vip": random.random(rows) < 0.2,
        }
    )
    table["bought"] = np.where(table["age"] > 50, "ja", "nein")
    table.loc[::7, "income"] = np.nan
    table.loc[::9, "city"] = None
    table.loc[::13, "since"] = pd.NaT
    return table if target == "bought" else table.drop(columns="bought").dropna(subset=[target])


def check(root: Path, app: str = "app.py") -> None:
    assert {path.name for path in root.iterdir()} - {"data"} == EXPECTED | {app}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error::DeprecationWarning"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_basic(mlapp: Callable, tmp_path: Path) -> None:
    mlapp("init", "digits", cwd=tmp_path)
    check(tmp_path / "digits")
    requirements = (tmp_path / "digits/requirements.txt").read_text().split()
    assert requirements
    assert all("==" in line for line in requirements)


def test_notebook(mlapp: Callable, tmp_path: Path) -> None:
    mlapp("init", "book", "--template", "notebook", cwd=tmp_path)
    check(tmp_path / "book", "app.ipynb")
    assert "version 1 is in the store" in mlapp("train", "-p", "limit=200", cwd=tmp_path / "book").err


@pytest.mark.parametrize(("target", "file"), [("bought", "people.csv"), ("income", "people.parquet")])
def test_tabular_trains_on_a_table_as_it_is(mlapp: Callable, tmp_path: Path, target: str, file: str) -> None:
    table = mixed_table(target)
    table.to_csv(tmp_path / file, index=False) if file.endswith("csv") else table.to_parquet(tmp_path / file)
    ran = mlapp(
        "init", "people", "--template", "tabular", "--set", f"data={file}", "--set", f"target={target}", cwd=tmp_path
    )
    assert ran.code == 0, ran.err
    check(tmp_path / "people")

    manifest = json.loads(mlapp("train", "-p", "n_estimators=20", "--json", cwd=tmp_path / "people").out)
    fields = {field["name"]: field["type"] for field in manifest["schema"]["features"]["fields"]}
    assert fields["since"] == "datetime"
    assert target not in fields


@pytest.mark.parametrize(("separator", "decimal"), [(";", ","), (";", "."), ("\t", ".")])
def test_tabular_reads_what_spreadsheets_write(mlapp: Callable, tmp_path: Path, separator: str, decimal: str) -> None:
    mixed_table("bought").to_csv(tmp_path / "people.csv", index=False, sep=separator, decimal=decimal)
    chosen = ("--set", "data=people.csv", "--set", "target=bought")
    ran = mlapp("init", "people", "--template", "tabular", *chosen, cwd=tmp_path)
    assert ran.code == 0, ran.err
    manifest = json.loads(mlapp("train", "-p", "n_estimators=5", "--json", cwd=tmp_path / "people").out)
    fields = {field["name"]: field["type"] for field in manifest["schema"]["features"]["fields"]}
    assert fields == {"age": "integer", "income": "number", "city": "string", "since": "datetime", "vip": "boolean"}


def test_tabular_names_a_target_that_is_not_there(mlapp: Callable, tmp_path: Path) -> None:
    mixed_table("bought").to_csv(tmp_path / "people.csv", index=False)
    ran = mlapp("init", "x", "--template", "tabular", "--set", "data=people.csv", "--set", "target=bougt", cwd=tmp_path)
    assert ran.code == 2
    assert "has no column 'bougt'. Did you mean 'bought'?" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["people.csv"]


def test_a_template_may_be_a_folder_or_a_git_repository(mlapp: Callable, tmp_path: Path) -> None:
    template = tmp_path / "template"
    (template / "{{ cookiecutter.name }}").mkdir(parents=True)
    (template / "cookiecutter.json").write_text('{"name": "mine"}')
    (template / "{{ cookiecutter.name }}/app.py").write_text(
        "from mlapp import App\napp = App('{{ cookiecutter.name }}')\n"
    )
    assert mlapp("init", "one", "--template", str(template), cwd=tmp_path).code == 0
    assert "App('one')" in (tmp_path / "one/app.py").read_text()

    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a template"]):
        subprocess.run([*git, *command], cwd=template, check=True)
    assert mlapp("init", "two", "--template", f"git+file://{template}", cwd=tmp_path).code == 0
    assert "App('two')" in (tmp_path / "two/app.py").read_text()


def test_what_python_compiled_in_a_template_stays_there(mlapp: Callable, tmp_path: Path) -> None:
    source = tmp_path / "ours"
    (source / "{{ cookiecutter.name }}/__pycache__").mkdir(parents=True)
    (source / "cookiecutter.json").write_text('{"name": "sample"}')
    (source / "{{ cookiecutter.name }}/app.py").write_text("# {{ cookiecutter.name }}")
    (source / "{{ cookiecutter.name }}/__pycache__/app.cpython-311.pyc").write_bytes(b"\xcb\r\r\n")
    assert mlapp("init", "sample", "--template", str(source), cwd=tmp_path).code == 0
    assert [path.name for path in (tmp_path / "sample").iterdir()] == ["app.py"]
