"""Templates: each gives a project that trains, and whose own test passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlapp.provenance import read_installed_versions
from tests import core_install
from tests.preloaded import preload_commands

FILES = {".gitignore", "README.md", "mlapp.yaml", "requirements.txt", "requirements-dev.txt", "test_app.py"}
EXPECTED = FILES | {"wheels"}  # mlapp comes from no package index here


WARNINGS = [] if core_install.IS_ACTIVE else ["-W", "error::DeprecationWarning"]
"""Old versions of some libraries beside new ones of others warn of each other."""


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


def check(root: Path, app: str = "app.py", *, more: frozenset[str] = frozenset(), is_new: bool = False) -> None:
    """The project has these files, and its test passes: in a new process, or in one that has imported pandas."""
    assert {path.name for path in root.iterdir()} - {"data"} == EXPECTED | {app} | more
    options = ["-q", "-p", "no:cacheprovider", *WARNINGS]
    environ = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if is_new:
        command = [sys.executable, "-m", "pytest", *options]
        done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True)
    else:
        done = preload_commands().run(["pytest", *options], root, environ)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_init_says_what_comes_next(mlapp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new environment has not the packages of every template, and microservices has no model in its folder."""
    monkeypatch.chdir(tmp_path)
    assert mlapp("init", "plain").err.endswith("Next:\n  cd plain\n  mlapp train\n")
    monkeypatch.setattr("mlapp.scaffold.read_installed_versions", lambda names: {})
    install = "pip install -r requirements-dev.txt"
    assert f"Next:\n  cd poor\n  {install}\n  mlapp train\n" in mlapp("init", "poor").err
    several = mlapp("init", "several", "--template", "microservices").err
    assert several.endswith("follow README.md\n")


def test_basic(mlapp: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = {"scikit-learn": "1.9.1+cpu"}  # a build from an index of its own, which package indexes do not have
    monkeypatch.setattr(
        "mlapp.scaffold.read_installed_versions", lambda names: {**read_installed_versions(names), **builds}
    )
    mlapp("init", "digits", cwd=tmp_path)
    check(tmp_path / "digits", is_new=True)
    option, *requirements = (tmp_path / "digits/requirements.txt").read_text().splitlines()
    assert (option, bool(requirements)) == ("--find-links wheels", True)
    assert all("==" in line for line in requirements)
    assert "scikit-learn==1.9.1" in requirements


@pytest.mark.parametrize(
    ("template", "more"),
    [
        pytest.param("flask", {"web.py", "templates"}, marks=pytest.mark.needs("flask")),
        pytest.param("django", {"manage.py", "web"}, marks=pytest.mark.needs("django")),
        pytest.param("aws-lambda", {"events"}, marks=pytest.mark.needs("boto3")),
    ],
)
def test_a_program_with_the_model_in_it(mlapp: Callable, tmp_path: Path, template: str, more: set[str]) -> None:
    mlapp("init", "iris", "--template", template, cwd=tmp_path)
    check(tmp_path / "iris", more=frozenset(more))


def test_notebook(mlapp: Callable, tmp_path: Path) -> None:
    mlapp("init", "book", "--template", "notebook", cwd=tmp_path)
    check(tmp_path / "book", "app.ipynb")
    assert "version 1 is in the store" in mlapp("train", "-p", "limit=200", cwd=tmp_path / "book").err


@pytest.mark.parametrize(
    ("target", "file"),
    [("bought", "people.csv"), pytest.param("income", "people.parquet", marks=pytest.mark.needs("pyarrow"))],
)
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


@pytest.mark.needs("optuna")
def test_tabular_has_parameters_to_search(mlapp: Callable, tmp_path: Path) -> None:
    mixed_table("bought").to_csv(tmp_path / "people.csv", index=False)
    mlapp("init", "people", "--template", "tabular", "--set", "data=people.csv", "--set", "target=bought", cwd=tmp_path)
    options = ("--trials", "2", "--folds", "2", "--workers", "1", "-p", "n_estimators=5", "--json")
    ran = mlapp("tune", *options, cwd=tmp_path / "people")
    assert ran.code == 0, ran.err
    trials = json.loads(ran.out)["tuning"]["trials"]
    assert [sorted(trial["parameters"]) for trial in trials] == [["model.max_depth", "model.min_samples_leaf"]] * 2


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


def in_git(template: Path, files: dict[str, str]) -> str:
    """The URL of a template with these files, in a git repository."""
    for name, text in {"cookiecutter.json": '{"name": "mine"}', **files}.items():
        (template / name).parent.mkdir(parents=True, exist_ok=True)
        (template / name).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "a template"]):
        subprocess.run([*git, *command], cwd=template, check=True)
    return f"git+file://{template}"


def test_the_hooks_of_a_template_from_elsewhere_run_only_when_allowed(mlapp: Callable, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    hook = f"open({str(ran)!r}, 'w').close()\n"
    files = {"hooks/post_gen_project.py": hook, "{{ cookiecutter.name }}/app.py": "A = 1\n"}
    url = in_git(tmp_path / "template", files)
    refused = mlapp("init", "one", "--template", url, cwd=tmp_path)
    assert (refused.code, ran.exists(), (tmp_path / "one").exists()) == (2, False, False)
    assert "hooks/post_gen_project.py" in refused.err
    assert "--yes" in refused.err
    assert mlapp("init", "one", "--template", url, "--yes", cwd=tmp_path).code == 0
    assert ran.exists()


@pytest.mark.parametrize(
    ("variables", "files"),
    [
        ({"at": "../../../victim"}, {"{{ cookiecutter.name }}/{{ cookiecutter.at }}": "theirs"}),
        ({"at": "{{ '/'.join(['..'] * 3) }}/victim"}, {"{{ cookiecutter.name }}/{{ cookiecutter.at }}": "theirs"}),
        ({"name": "../../victim"}, {"{{ cookiecutter.name }}/app.py": "theirs"}),
        ({"at": "../../victim", "_copy_without_render": ["*copied*"]},
         {"{{ cookiecutter.name }}/{{ cookiecutter.at }}copied/app.py": "theirs"}),
    ],
    ids=["file", "expression", "project", "copied folder"],
)  # fmt: skip
def test_a_template_from_elsewhere_writes_nothing_outside_of_the_project(
    mlapp: Callable, tmp_path: Path, variables: dict, files: dict[str, str]
) -> None:
    (tmp_path / "victim").write_text("mine")
    url = in_git(tmp_path / "template", {"cookiecutter.json": json.dumps({"name": "mine", **variables}), **files})
    refused = mlapp("init", "--template", url, cwd=tmp_path)
    assert (refused.code, "outside the project" in refused.err) == (2, True), refused.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["template", "victim"]
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_link_in_a_template_from_elsewhere_does_not_bring_a_file_of_this_machine(
    mlapp: Callable, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("mine")
    folder = tmp_path / "template/{{ cookiecutter.name }}"
    folder.mkdir(parents=True)
    (folder / "app.py").symlink_to(tmp_path / "secret")
    refused = mlapp("init", "one", "--template", in_git(tmp_path / "template", {}), cwd=tmp_path)
    assert (refused.code, (tmp_path / "one").exists()) == (2, False)
    assert "has the link {{ cookiecutter.name }}/app.py" in refused.err


def test_a_template_from_elsewhere_calls_no_python_without_being_allowed(mlapp: Callable, tmp_path: Path) -> None:
    call = "{{ cookiecutter.__class__.__mro__[1].__subclasses__() }}"
    url = in_git(tmp_path / "template", {"{{ cookiecutter.name }}/app.py": f"A = '''{call}'''\n"})
    refused = mlapp("init", "one", "--template", url, cwd=tmp_path)
    assert (refused.code, (tmp_path / "one").exists()) == (2, False), refused
    assert "The template runs Python code" in refused.err


@pytest.mark.needs("uv")
def test_a_project_installs_and_passes_its_test_in_an_environment_that_has_nothing(
    mlapp: Callable, tmp_path: Path
) -> None:
    """mlapp comes from no package index here, so that the project brings its wheel."""
    mlapp("init", "digits", cwd=tmp_path)
    root = tmp_path / "digits"
    assert "--find-links wheels\nmlapp-kit[sklearn,monitor]==" in (root / "requirements.txt").read_text()
    uv = [sys.executable, "-m", "uv"]
    links = subprocess.run([sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True)
    environ = {**os.environ, "UV_FIND_LINKS": links.stdout.decode().strip(), "PYTHONPATH": ""}
    for command in (
        [*uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")],
        [*uv, "pip", "install", "-q", "--python", str(tmp_path / "venv"), "-r", "requirements-dev.txt"],
        [str(tmp_path / "venv/bin/python"), "-m", "pytest", "-q"],
    ):
        done = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_one_wheel_serves_all_projects_of_a_template(mlapp: Callable, tmp_path: Path) -> None:
    mlapp("init", "reading", "--template", "microservices", cwd=tmp_path)
    assert (tmp_path / "reading/digits/requirements.txt").read_text().startswith("--find-links ../wheels\n")
    assert len(list(tmp_path.rglob("*.whl"))) == 1


def test_tabular_keeps_codes_reads_other_dates_and_leaves_identifiers_out(mlapp: Callable, tmp_path: Path) -> None:
    random, rows = np.random.default_rng(0), 60
    days = pd.Timestamp("2025-01-01") + pd.to_timedelta(random.permutation(400)[:rows], "D")  # all different
    table = pd.DataFrame(
        {
            "customer_id": random.permutation(10_000)[:rows],
            "reference": [f"A{number:05}" for number in random.permutation(rows)],
            "zip": [f"{number:05}" for number in random.choice([1067, 8001, 80331], rows)],
            "since": days.strftime("%d/%m/%Y"),
            "age": random.integers(18, 80, rows),
            "income": random.normal(size=rows),
            "note": [f"customer since {row} weeks" for row in range(rows)],
            "bought": random.random(rows) < 0.5,
        }
    )
    table.to_csv(tmp_path / "people.csv")  # with the index, as pandas does by itself
    chosen = ("--set", "data=people.csv", "--set", "target=bought")
    ran = mlapp("init", "people", "--template", "tabular", *chosen, cwd=tmp_path)
    assert ran.code == 0, ran.err
    for name in ("'Unnamed: 0'", "'customer_id'", "'reference'"):
        assert name in ran.err
        assert name in (tmp_path / "people/README.md").read_text()
    manifest = json.loads(mlapp("train", "-p", "n_estimators=5", "--json", cwd=tmp_path / "people").out)
    fields = {field["name"]: field for field in manifest["schema"]["features"]["fields"]}
    assert {name: field["type"] for name, field in fields.items()} == {
        "zip": "string",
        "since": "datetime",
        "age": "integer",
        "income": "number",
        "note": "string",
    }
    assert "01067" in fields["zip"]["categories"]
    assert fields["since"]["minimum"] == days.min().isoformat()
    checked = mlapp("data", "check", "--json", cwd=tmp_path / "people")
    assert json.loads(checked.out)["differences"] == []
    assert mlapp("train", "-p", "n_estimators=5", cwd=tmp_path / "people").code == 0
