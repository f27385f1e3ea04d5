"""The modules that `mlapp serve` imports until it is ready: only those that requests need."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx

from .conftest import start_program

APP = """
from mlapp import App

app = App("irises", target="target")


@app.data_reader
def read():
    from sklearn.datasets import load_iris

    return load_iris(as_frame=True).frame


@app.model
def model():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)
"""
TRAIN = """
from app import app
from mlapp.config import Serve
from mlapp.serving.inference.served_model import load_served_model

app.train()
app.save()
load_served_model(app, "latest", None, Serve(runtime="onnx"))
"""
NEEDLESS = {
    *("sklearn", "scipy", "pandas", "skl2onnx", "skops", "joblib"),
    *("pyarrow", "polars", "duckdb", "obstore", "boto3", "cryptography"),
    *(
        "grpc",
        "opentelemetry",
        "fastapi",
        "pydantic",
        "starlette",
        "jinja2",
        "docker",
        "kubernetes",
        "rich",
        "gunicorn",
        "typer",
    ),
}


def test_a_kept_conversion_starts_without_the_framework_and_pandas(serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "mlapp.yaml").write_text("app: app.py\n")
    subprocess.run([sys.executable, "-c", TRAIN], cwd=tmp_path, check=True)
    with serve(tmp_path, "--runtime", "onnx", start=start_program, PYTHONPROFILEIMPORTTIME="1") as server:
        ready = server.text()
        body = httpx.get(f"{server.url}/model").json()["example"]
        answer = httpx.post(f"{server.url}/predict", json=body)
        assert answer.status_code == 200, answer.text
    imported = set(re.findall(r"^import time:.*\| +(\w+)", ready, re.MULTILINE))
    assert "onnxruntime" in imported
    assert not NEEDLESS & imported
