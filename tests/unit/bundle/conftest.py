"""A project with a trained model, made once; each test gets a copy of its own."""

import os
import shutil
import subprocess

import pytest

from mlapp import training
from mlapp.project import Project

APP = """
import pandas as pd
from sklearn.linear_model import LogisticRegression
from mlapp import App

app = App("flowers", target="kind")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"length": [1.0, 1.2, 3.0, 3.3] * 5, "kind": ["a", "a", "b", "b"] * 5})


app.model(LogisticRegression)
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    (root / "app.py").write_text(APP)
    (root / "requirements.txt").write_text("scikit-learn\nskops\npandas\n")
    (root / ".gitignore").write_text(".mlapp/\n*.log\n")
    project = Project.find(root)
    before = os.getcwd()
    project.store.put(training.run(project.app))
    os.chdir(before)
    return root


@pytest.fixture
def project(trained, tmp_path):
    root = tmp_path / "project"
    shutil.copytree(trained, root)
    return Project.find(root)


@pytest.fixture
def git(project):
    """Runs git in the project, which is a repository with one commit."""

    identity = {f"GIT_{who}_{what}": "a" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    dates = {f"GIT_{who}_DATE": "@1700000000 +0000" for who in ("AUTHOR", "COMMITTER")}

    def run(*arguments):
        environ = {**os.environ, **identity, **dates}
        return subprocess.run(["git", *arguments], cwd=project.root, env=environ, check=True, capture_output=True)

    run("init", "-q")
    run("add", "app.py", ".gitignore", "requirements.txt")
    run("commit", "-qm", "first")
    return run
