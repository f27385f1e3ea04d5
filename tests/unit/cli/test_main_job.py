"""The main job at the command line: init, train, predict, models, data, doctor."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import typer

from mlapp.cli.commands import cli


def test_from_an_empty_folder_to_predictions(mlapp: Callable, tmp_path: Path) -> None:
    assert mlapp("init", "digits", cwd=tmp_path).code == 0
    root = tmp_path / "digits"
    trained = mlapp("train", "-p", "limit=300", "-p", "C=0.1", "--json", cwd=root)
    manifest = json.loads(trained.out)
    assert (manifest["version"], manifest["parameters"]["C"], manifest["parameters"]["limit"]) == (1, 0.1, 300)
    assert manifest["metrics"]["test"]["accuracy"] > 0.8

    predictions = json.loads(mlapp("predict", "-p", "limit=3").out)
    assert predictions == [0, 1, 2]


def test_results_go_to_stdout_and_all_else_to_stderr(mlapp: Callable, project: Callable) -> None:
    project()
    trained = mlapp("train")
    assert trained.out.splitlines()[0].split() == ["split", "accuracy", "f1_macro"]
    assert "flowers version 1 is in the store. Next: mlapp serve" in trained.err


def test_models_are_listed_sorted_filtered_and_compared(mlapp: Callable, project: Callable) -> None:
    project()
    for C in ("0.0001", "1.0"):
        mlapp("train", "-p", f"C={C}")
    mlapp("models", "promote", "2", "production")

    listed = json.loads(mlapp("models", "list", "--json").out)
    assert [(version["version"], version["aliases"]) for version in listed] == [(1, []), (2, ["production"])]
    best_first = json.loads(mlapp("models", "list", "--sort", "-accuracy", "--json").out)
    assert [version["version"] for version in best_first] == [2, 1]
    assert len(json.loads(mlapp("models", "list", "--where", "accuracy>=0.9", "--json").out)) == 1
    none = mlapp("models", "list", "--where", "accuracy>=2")
    assert "No version of flowers meets every condition of --where." in none.err
    assert mlapp("models", "list", "--sort", "acuracy").err.startswith(
        "Error: No version has a metric 'acuracy'. Did you mean"
    )

    assert mlapp("models", "compare", "1", "--markdown").out.splitlines()[0] == "|  | version 1 |"
    compared = mlapp("models", "compare", "1", "production").out.splitlines()
    assert compared[0].split() == ["version", "1", "version", "2"]
    assert any(line.split() == ["C", "0.0001", "1", "differs"] for line in compared)
    assert json.loads(mlapp("models", "show", "production", "--json").out)["version"] == 2


def test_a_list_of_many_versions_shows_the_newest(mlapp: Callable, project: Callable) -> None:
    root = project()
    mlapp("train")
    (first,) = root.glob(".mlapp/store/*/versions/*.json")
    for number in range(2, 61):
        again = first.read_text().replace('"version": 1,', f'"version": {number},')
        first.with_name(f"{number:06}.json").write_text(again)
    listed = mlapp("models", "list")
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == [str(number) for number in range(11, 61)]
    assert "mlapp models list --all" in listed.err
    assert len(mlapp("models", "list", "--all").out.splitlines()) == 61
    assert len(json.loads(mlapp("models", "list", "--json").out)) == 60


def test_deleting_a_version_asks(mlapp: Callable, project: Callable) -> None:
    project()
    mlapp("train")
    asked = mlapp("models", "delete", "1")
    assert asked.code == 2
    assert "'Permanently delete version 1 of flowers?', but stdin is not a terminal" in asked.err
    assert mlapp("models", "delete", "1", "--yes").code == 0
    assert json.loads(mlapp("models", "list", "--json").out) == []
    listed = mlapp("models", "list")
    assert (listed.out, listed.err) == ("", "flowers has no version. Train one: mlapp train\n")


def test_old_versions_are_pruned(mlapp: Callable, project: Callable) -> None:
    project()
    for _ in range(4):
        mlapp("train", "-p", "limit=60")
    mlapp("models", "promote", "1", "production")
    planned = json.loads(mlapp("models", "prune", "--keep", "2", "--dry-run", "--json").out)
    assert planned["versions"] == [2]
    assert planned["bytes"] > 0
    assert not planned["deleted"]
    assert mlapp("models", "prune", "--keep", "2").code == 2  # it asks, and nobody is there to answer
    pruned = mlapp("models", "prune", "--keep", "2", "--yes")
    assert pruned.err.startswith("Versions deleted: 1, with")
    assert [version["version"] for version in json.loads(mlapp("models", "list", "--json").out)] == [1, 3, 4]


@pytest.mark.needs("pyarrow")
def test_features_come_from_a_file_a_pipe_or_stdin(mlapp: Callable, project: Callable, tmp_path: Path) -> None:
    root = project()
    mlapp("train")
    row = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
    pd.DataFrame([row]).to_csv(root / "new.csv", index=False)
    pd.DataFrame([row]).to_parquet(root / "new.parquet")
    (root / "new.json").write_text(json.dumps([row]))
    (root / "new.jsonl").write_text(json.dumps(row) + "\n")
    pd.DataFrame([{**row, "target": 0}]).to_csv(root / "past.csv", index=False)
    for name in ("new.csv", "new.parquet", "new.json", "new.jsonl", "past.csv"):
        assert json.loads(mlapp("predict", "--features", name).out) == [0], name
    piped = subprocess.run(
        [sys.executable, "-m", "mlapp", "predict", "--features", "-"],
        input=b"\xef\xbb\xbf" + json.dumps({"inputs": [row]}).encode(),
        capture_output=True,
        cwd=root,
    )
    assert json.loads(piped.stdout) == [0]
    substituted = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m mlapp predict --features <(cat new.json)'], capture_output=True, cwd=root
    )
    assert json.loads(substituted.stdout) == [0]


def test_data_show_describes_what_the_reader_reads(mlapp: Callable, project: Callable) -> None:
    project()
    shown = json.loads(mlapp("data", "show", "-p", "limit=20", "--json").out)
    assert shown["rows"] == 20
    assert shown["columns"][0]["name"] == "sepal length (cm)"


def test_doctor_shows_what_works_and_what_is_missing(mlapp: Callable, project: Callable) -> None:
    project()
    mlapp("train")
    findings = {finding["what"]: finding for finding in json.loads(mlapp("doctor", "--json").out)}
    assert findings["python"]["works"]
    assert findings["project"]["detail"].startswith("app 'flowers'")
    assert findings["libraries"]["detail"] == "those that trained version 1"


@pytest.mark.needs("docker", "kubernetes")
def test_doctor_says_whether_an_engine_and_a_cluster_answer(mlapp: Callable, project: Callable, monkeypatch) -> None:
    project()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    monkeypatch.setenv("KUBECONFIG", "nowhere.yaml")
    findings = {finding["what"]: finding for finding in json.loads(mlapp("doctor", "--json").out)}
    assert findings["target docker"]["detail"] == "No Docker engine answers at tcp://127.0.0.1:1."
    assert findings["target k8s"]["detail"] == "There is no kubeconfig: nowhere.yaml does not exist."
    assert not findings["target k8s"]["works"]
    assert "target kserve" not in findings

    Path("mlapp.yaml").write_text("environments: {production: {targets: {kserve: {namespace: models}}}}")
    findings = {finding["what"]: finding for finding in json.loads(mlapp("doctor", "--json").out)}
    assert not findings["target kserve"]["works"]
    assert "target seldon" not in findings


def test_doctor_names_libraries_that_differ_from_those_that_trained(mlapp: Callable, project: Callable) -> None:
    root = project()
    mlapp("train")
    (manifest,) = (root / ".mlapp/store/flowers/versions").iterdir()
    text = json.loads(manifest.read_text())
    text["libraries"]["scikit-learn"] = "0.1"
    manifest.write_text(json.dumps(text))
    findings = {finding["what"]: finding for finding in json.loads(mlapp("doctor", "--json").out)}
    assert not findings["libraries"]["works"]
    assert "0.1 in training" in findings["libraries"]["detail"]


def commands(group: typer.core.TyperGroup, path: str = "mlapp") -> Iterator[tuple[str, str]]:
    """The path and the help of every command."""
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command.help or ""


def test_every_command_shows_an_example_of_itself() -> None:
    commands_by_name = dict(commands(typer.main.get_group(cli)))
    assert len(commands_by_name) > 25
    assert [path for path, text in commands_by_name.items() if f"  {path}" not in text] == []


def test_the_shell_completes_commands() -> None:
    asked = {"_MLAPP_COMPLETE": "complete_bash", "COMP_WORDS": "mlapp models pr", "COMP_CWORD": "2"}
    program = Path(sys.executable).with_name("mlapp")
    output = subprocess.check_output([program], env={**os.environ, **asked}, text=True)
    assert output.split() == ["promote", "prune"]


def test_importing_mlapp_imports_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, mlapp, mlapp.cli.commands; "
        "print([name for name in ('pandas', 'numpy', 'fastapi', 'pydantic', 'cookiecutter', 'docker', 'kubernetes',"
        " 'flytekit', 'sklearn') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_version_is_printed_without_a_command(mlapp: Callable, tmp_path: Path) -> None:
    assert mlapp("--version", cwd=tmp_path).out == f"mlapp {importlib.metadata.version('mlapp-kit')}\n"
