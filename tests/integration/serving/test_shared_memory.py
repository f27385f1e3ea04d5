"""`mlapp serve --workers 2` where the framework survives a fork: the parent loads the model, the workers share it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from mlapp.project import Project
from tests.integration.serving.conftest import PATIENCE, start_program, until

APP = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlapp import App

app = App("lines", target="y")


@app.data_reader
def read(factor: float = 1.0) -> pd.DataFrame:
    x = np.arange(50.0)
    return pd.DataFrame({"x": x, "y": factor * x})


@app.model
def model() -> LinearRegression:
    return LinearRegression()


@app.predictor
def predict(model: LinearRegression, features: pd.DataFrame) -> list[dict]:
    return [{"y": round(y), "random": int(np.random.randint(1 << 60))} for y in model.predict(features)]
"""
BODY = {"inputs": [{"x": 3.0}]}


TRAIN = """
from app import app

for factor in (1, 2):
    app.train(factor=factor)
    app.save()
app.store().promote("lines", 1, "production")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    (folder / "app.py").write_text(APP)
    (folder / "mlapp.yaml").write_text("app: app.py\n")
    subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, check=True)
    return folder


def shares_memory(pid: int) -> bool:
    """Whether most of what a process has written to is another's too."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    private, shared = (int(re.search(rf"{kind}_Dirty:\s+(\d+)", text)[1]) for kind in ("Private", "Shared"))
    return private < shared


def test_workers_share_the_model_and_replace_each_other(serve, project: Path) -> None:
    options = ("--workers", "2", "--model", "production")
    with serve(project, *options, start=start_program, MLAPP_SERVE__REFRESH="0.2") as server:

        def ask() -> tuple[str, int]:
            answer = httpx.post(f"{server.url}/predict", json=BODY, timeout=PATIENCE).json()
            return answer["version"], answer["predictions"][0]["y"]

        def workers() -> list[psutil.Process]:
            found = []
            for child in psutil.Process(server.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since it was listed
                    if child.status() != psutil.STATUS_ZOMBIE:
                        found.append(child)
            return found

        answers = [httpx.post(f"{server.url}/predict", json=BODY) for _ in range(40)]
        assert len({answer.json()["predictions"][0]["random"] for answer in answers}) == len(answers)
        assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
        assert len(workers()) == 2
        assert all(shares_memory(worker.pid) for worker in workers())
        until(lambda: server.metric("http_requests_total", handler="/predict") == 40)

        first = workers()
        os.kill(first[0].pid, signal.SIGKILL)
        until(lambda: len(workers()) == 2 and first[0] not in workers())

        old = workers()
        Project.find(project).store.promote("lines", 2, "production")
        until(lambda: len(workers()) == 2 and not set(old) & set(workers()))
        assert {ask() for _ in range(20)} == {("2", 6)}
        assert all(shares_memory(worker.pid) for worker in workers())
        assert server.stop() == 0
        assert "could not start" not in server.text()
