"""stdout holds only the result of a command, whatever the app's code and its libraries print."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml
from sklearn.datasets import load_iris

PRINTING = """
    import ctypes
    import os
    import subprocess
    import sys

    import pandas as pd
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    from mlapp import App

    app = App("flowers", target="target")


    def talk(name):
        print(f"python in {name}")
        sys.stdout.write(f"write in {name}\\n")
        sys.__stdout__.write(f"original in {name}\\n")  # stays in a buffer of Python
        os.write(1, f"descriptor in {name}\\n".encode())
        ctypes.CDLL(None).puts(f"library in {name}".encode())  # stays in a buffer of the C library
        subprocess.run(["echo", f"child in {name}"])


    talk("import")


    @app.data_reader
    def read(limit: int | None = None) -> pd.DataFrame:
        talk("read")
        return load_iris(as_frame=True).frame.head(limit)


    @app.model
    def build() -> LogisticRegression:
        talk("build")
        return LogisticRegression(max_iter=1000)


    @app.feature_transformer
    def transform(features):
        talk("transform")
        return features


    @app.predictor
    def predict(model, features):
        talk("predict")
        return model.predict(features).tolist()


    @app.evaluator
    def evaluate(model, features, target) -> float:
        talk("evaluate")
        return model.score(features, target)
"""
WAYS = ("python", "write", "original", "descriptor", "library", "child")


def run_mlapp(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mlapp", *arguments], cwd=root, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "app.py").write_text(textwrap.dedent(PRINTING))
    load_iris(as_frame=True).frame.head(9).to_csv(root / "rows.csv", index=False)
    assert run_mlapp(root, "train").returncode == 0
    return root


@pytest.mark.parametrize(
    ("arguments", "function"),
    [
        (["train", "--json"], "read"),
        (["predict", "-p", "limit=3"], "predict"),
        (["predict", "--features", "rows.csv"], "predict"),
        (["models", "evaluate", "--data", "rows.csv", "--json"], "evaluate"),
        (["data", "show", "--json"], "read"),
        (["data", "check", "--json"], "read"),
        (["data", "export", "--to", "out.csv", "--json"], "read"),
    ],
    ids=str,
)
def test_the_json_of_a_command_stays_json(trained: Path, arguments: list[str], function: str) -> None:
    done = run_mlapp(trained, *arguments)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    for way in WAYS:
        for name in ("import", function):
            assert f"{way} in {name}\n" in done.stderr


def test_results_for_people_come_without_the_apps_output(trained: Path) -> None:
    done = run_mlapp(trained, "train")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["split", "train", "test"]


def test_the_objects_of_a_deploy_stay_yaml(trained: Path) -> None:
    image = f"registry.example.org/flowers@sha256:{'0' * 64}"
    done = run_mlapp(trained, "deploy", "--target", "k8s", "--dry-run", "--image", image)
    assert done.returncode == 0, done.stderr
    assert all("kind" in document for document in yaml.safe_load_all(done.stdout))


def test_help_and_the_version_are_on_stdout(tmp_path: Path) -> None:
    assert run_mlapp(tmp_path, "train", "--help").stdout.startswith("Usage: mlapp train")
    assert run_mlapp(tmp_path, "--version").stdout.startswith("mlapp ")


def test_a_reader_that_goes_away_ends_the_command_quietly(trained: Path) -> None:
    command = f'"{sys.executable}" -m mlapp predict -p limit=3 2>errors.txt | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], cwd=trained)
    assert done.returncode == 141
    assert "BrokenPipe" not in (trained / "errors.txt").read_text()


def test_a_command_without_stdout_works(trained: Path) -> None:
    command = f'"{sys.executable}" -m mlapp models promote 1 >&-'
    assert subprocess.run(["bash", "-c", command], cwd=trained).returncode == 0
