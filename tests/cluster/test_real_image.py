"""The whole way with the real image: train, deploy, train again, deploy again under load, and lose nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

APP = """
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlapp import App

app = App("digits", target="y")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"x": range(40), "y": range(40)})


@app.model
def build(fit_intercept: bool = True) -> LinearRegression:
    return LinearRegression(fit_intercept=fit_intercept)
"""


@pytest.fixture
def mlapp(tmp_path, namespace, place):
    """Runs a command in a project; what it printed on stdout."""
    kubeconfig, registry, base = place
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "requirements.txt").write_text("mlapp[sklearn]\npandas\nscikit-learn\n")
    settings = {
        "image": {"name": f"{registry}/mlapp-test/real", "base": base},
        "targets": {"k8s": {"namespace": namespace, "replicas": 2, "resources": {"cpu": "50m", "cpu_limit": None}}},
    }
    (tmp_path / "mlapp.yaml").write_text(json.dumps(settings))
    environment = {**os.environ, "KUBECONFIG": kubeconfig}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "mlapp", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_new_model_goes_live_under_load(mlapp, load, namespace):
    mlapp("train")
    assert mlapp("deploy").strip() == f"http://digits.{namespace}.svc"
    running = load(90, 100)

    mlapp("train", "-p", "fit_intercept=false")
    mlapp("deploy")
    mlapp("rollback")

    found = running.result()
    print(found)
    assert found["bad"] == {}
    assert set(found["versions"]) == {"1", "2"}
    status = json.loads(mlapp("status", "--json"))
    assert (status["release"]["number"], status["ready"], status["problems"]) == (3, 2, [])
    mlapp("delete", "--yes")
