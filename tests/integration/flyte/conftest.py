"""One small Flyte for all tests, with one registered and trained project."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.interface import Registration
from mlapp.project import Project
from tests.integration.flyte.flyteadmin import Flyteadmin
from tests.integration.flyte.preloaded import preloaded

APP = """
import datetime
import os
import time
from typing import Annotated

import pandas as pd
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from mlapp import App, Search
from mlapp.pipeline import Resources

app = App("flowers", target="target")
app.schedule("nightly", cron="0 3 * * *", parameters={"C": 0.5}, time="now", promote_if="accuracy")


@app.data_reader(cache=True)
def read(limit: int | None = None, now: datetime.datetime | None = None) -> pd.DataFrame:
    import helpers

    return helpers.flowers(limit)


@app.model
def build(C: Annotated[float, Search(0.01, 100, log=True)] = 1.0, penalty=None) -> LogisticRegression:
    return LogisticRegression(C=C, max_iter=200)


@app.trainer(resources=Resources(cpu=1, memory="700Mi"), retries=1, secrets=["database/password"])
def fit(model, features, target, fail: str = ""):
    held = []
    while fail == "memory":
        held.append(b"x" * 50_000_000)
        time.sleep(0.02)
    if fail == "secret":
        fail = os.environ["PASSWORD"]
    if fail:
        raise ValueError(f"bad luck: {fail}")
    return model.fit(features, target)
"""
HELPERS = """
def flowers(limit):
    from sklearn.datasets import load_iris

    return load_iris(as_frame=True).frame.sample(frac=1, random_state=0).head(limit)
"""
WORKFLOWS = """
from flytekit import workflow

from app import app
from mlapp.flyte import predict_workflow, train_workflow

train = train_workflow(app)
predict = predict_workflow(app)


@workflow
def train_and_predict(c: float = 1.0) -> dict[str, dict[str, float]]:
    trained = train(c=c)
    predict(model=trained.model)
    return trained.metrics
"""
CONFIG = """
admin:
  endpoint: {address}
  insecure: true
"""


@pytest.fixture(scope="session")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flyteadmin]:
    with preloaded() as start, Flyteadmin(tmp_path_factory.mktemp("flyte")).serving() as admin:
        admin.propeller.start = start
        yield admin


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's folder, in git."""
    root = tmp_path_factory.mktemp("flowers")
    (root / "app.py").write_text(APP)
    (root / "helpers.py").write_text(HELPERS)
    (root / "workflows.py").write_text(WORKFLOWS)
    (root / "mlapp.yaml").write_text("flyte:\n  image: registry.example/flowers:1\n")
    (root / ".gitignore").write_text(".mlapp/\n__pycache__/\n")
    commit(root)
    return root


def commit(root: Path) -> None:
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-C", str(root)]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as it is"]):
        subprocess.run([*git, *command], check=True)


@pytest.fixture(autouse=True)
def configured(
    admin: Flyteadmin, root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """flytekit's configuration names the small Flyte; the test is in the project's folder."""
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    file.write_text(CONFIG.format(address=admin.address))
    monkeypatch.setenv("FLYTECTL_CONFIG", str(file))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(root)
    return file


@pytest.fixture
def engine(root: Path) -> FlytekitEngine:
    return FlytekitEngine(Project.find(root))


@pytest.fixture(scope="session")
def versions() -> dict[str, Registration]:
    """The registration that the tests share, once there is one."""
    return {}


@pytest.fixture
def registered(engine: FlytekitEngine, versions: dict[str, Registration]) -> Registration:
    if not versions:
        versions["one"] = engine.register_project(engine.build_image(print), print)
        engine.deploy_schedules(versions["one"], print)
    return versions["one"]


@pytest.fixture
def cluster(admin: Flyteadmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubeconfig that reaches the pods."""
    kubeconfig = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": admin.web}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
