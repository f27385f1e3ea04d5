"""The complete job with the real image: train, deploy, predict, and deploy again under load without loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlapp.deploy.cluster.transport import ApiRequest
from tests import servers

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
    """Runs a command in a project; returns its stdout."""
    kubeconfig, registry, base = place
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "requirements.txt").write_text("mlapp-kit[sklearn]\npandas\nscikit-learn\n")
    settings = {
        "image": {"name": f"{registry}/mlapp-test/real", "base": base},
        "targets": {"k8s": {"namespace": namespace, "replicas": 2, "resources": {"cpu": "50m", "cpu_limit": None}}},
    }
    (tmp_path / "mlapp.yaml").write_text(json.dumps(settings))
    environment = {**os.environ, "KUBECONFIG": kubeconfig}

    def run(*words: str, given: str | None = None, **settings: object) -> str:
        if settings:
            at_work = json.loads((tmp_path / "mlapp.yaml").read_text())
            at_work["targets"]["k8s"].update(settings)
            (tmp_path / "mlapp.yaml").write_text(json.dumps(at_work))
        command = [sys.executable, "-m", "mlapp", *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, input=given, capture_output=True, text=True, timeout=400
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_new_model_goes_live_under_load(mlapp, load, namespace):
    mlapp("train")
    assert mlapp("deploy").strip() == f"http://digits.{namespace}.svc"
    answered = mlapp("predict", "--target", "k8s", "--features", "-", given='[{"x": 3}, {"x": 4}]')
    assert json.loads(answered) == pytest.approx([3, 4])
    running = load(100)

    mlapp("train", "-p", "fit_intercept=false")
    mlapp("deploy")
    mlapp("rollback")

    outcome = running.stop()
    print(outcome)
    assert outcome["bad"] == {}
    assert set(outcome["versions"]) == {"1", "2"}
    status = json.loads(mlapp("status", "--json"))
    assert (status["release"]["number"], status["ready"], status["problems"]) == (3, 2, [])
    mlapp("delete", "--yes")


PULL = """
import os
from pathlib import Path
from obstore.store import S3Store
store = S3Store("models", endpoint=os.environ["AWS_ENDPOINT_URL"], client_options={"allow_http": True})
for page in store.list():
    for entry in page:
        file = Path("/app/model", entry["path"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(store.get(entry["path"]).bytes()))
        print("pulled", file, flush=True)
"""


def test_an_init_container_pulls_the_model_from_an_object_store(mlapp, target, api, namespace, place, tmp_path):
    """The mount hides the model of the image, so that what answers is what was pulled."""
    import boto3

    server = yaml.safe_load(Path(place[0]).read_text())["clusters"][0]["cluster"]["server"]
    if "127.0.0.1" not in server:
        pytest.skip("the object store runs here: the cluster must too")
    node = api.transport.send_json(ApiRequest("GET", "/api/v1/nodes", verb="list", object="nodes"))["items"][0]
    address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    (tmp_path / "requirements.txt").write_text("mlapp-kit[sklearn,s3]\npandas\nscikit-learn\n")
    mlapp("train")
    built = json.loads(mlapp("build", "--push", "--json"))[0]
    image = built["reference"].rpartition(":")[0] + "@" + built["digest"]
    with servers.s3(address) as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
        bucket = boto3.resource(
            "s3",
            endpoint_url=endpoint,
            region_name=keys["AWS_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket="models")
        model = next((tmp_path / ".mlapp/bundles").glob("*/model"))
        for file in (file for file in model.rglob("*") if file.is_file()):
            bucket.upload_file(str(file), str(file.relative_to(model)))
        api.transport.send_json(
            ApiRequest(
                "POST",
                f"/api/v1/namespaces/{namespace}/secrets",
                body={"metadata": {"name": "s3"}, "stringData": {**keys, "AWS_ENDPOINT_URL": endpoint}},
                verb="create",
                object="secret",
            )
        )

        port = int(endpoint.rpartition(":")[2])
        pull = {"image": image, "command": ["python3", "-c", PULL], "secret": "s3", "port": port}
        mlapp("deploy", model_pull=pull)

        assert target().predict([{"x": 3}])["predictions"] == pytest.approx([3])
