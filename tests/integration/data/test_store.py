"""The model store in a bucket of a real S3: the same guarantees as in a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.cli.main import run
from mlapp.errors import ConfigError, StoreError, UsageError
from mlapp.model import TrainedModel
from mlapp.prediction import load_predictor
from mlapp.store import Store, open_store
from tests import faults

pytestmark = pytest.mark.xdist_group("s3")

WRITER = """
import sys
from pathlib import Path
from mlapp.store import open_store
source, url, cache, rounds = sys.argv[1:]
version, store = open_store(source, Path()).get("numbers"), open_store(url, Path(cache))
print("ready", flush=True)
for _ in range(int(rounds)):
    number = store.import_version(version).version
    store.promote("numbers", number, "staging")
    print(number, flush=True)
"""


class Table:
    """A model of any size with constant predictions."""

    def __init__(self, megabytes: int = 0) -> None:
        self.weights = np.random.default_rng(0).bytes(megabytes << 20)

    def fit(self, features: pd.DataFrame, target: pd.Series) -> Table:
        self.mean = 0.5
        return self

    def predict(self, features: pd.DataFrame) -> list[float]:
        return [self.mean] * len(features)


def an_app(megabytes: int = 0) -> App:
    app = App("numbers", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": np.linspace(-1, 1, 8), "y": np.linspace(0, 1, 8)}))
    app.model(lambda: Table(megabytes))
    app.evaluator(lambda model, features, target: {"size": len(model.weights)})

    @app.saver
    def save(model: Table, folder: Path) -> None:
        (folder / "weights").write_bytes(model.weights)
        (folder / "mean").write_text(str(model.mean))

    @app.loader
    def read(folder: Path) -> Table:
        model = Table()
        model.weights, model.mean = (folder / "weights").read_bytes(), float((folder / "mean").read_text())
        return model

    return app


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return an_app().train()


@pytest.fixture(scope="module")
def s3(s3_server: str) -> Any:
    client = boto3.client(
        "s3", endpoint_url=s3_server, aws_access_key_id="key", aws_secret_access_key="secret", region_name="us-east-1"
    )
    client.create_bucket(Bucket="models")
    return client


@pytest.fixture
def bucket(s3: Any, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty store."""
    for name, value in {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return f"s3://models/{uuid.uuid4().hex}"


def keys(s3: Any, url: str) -> list[str]:
    prefix = url.removeprefix("s3://models/") + "/"
    objects = s3.list_objects_v2(Bucket="models", Prefix=prefix).get("Contents", [])
    return sorted(entry["Key"].removeprefix(prefix) for entry in objects)


def writer(source: Path, url: str, cache: Path, rounds: int) -> subprocess.Popen[str]:
    """A process that stores the version of a local store again and again."""
    command = [sys.executable, "-c", WRITER, str(source), url, str(cache), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def assert_whole(store: Store, versions: int) -> None:
    """Versions 1…n exist, each with its own stored files."""
    assert store.list_numbers("numbers") == list(range(1, versions + 1))
    assert len({store.get("numbers", number).manifest.folder for number in range(1, versions + 1)}) == versions


def test_versions_and_aliases_are_as_in_a_folder(bucket: str, trained: TrainedModel, tmp_path: Path) -> None:
    store = open_store(bucket, tmp_path / "here")
    store.check_writable()
    assert [store.put(trained).version for _ in range(3)] == [1, 2, 3]
    store.promote("numbers", 1, "production")
    store.promote("numbers", "latest", "production")
    store.delete("numbers", 2)

    elsewhere = open_store(bucket, tmp_path / "elsewhere")
    assert elsewhere.apps() == ["numbers"]
    assert [manifest.version for manifest in elsewhere.versions("numbers")] == [1, 3]
    assert elsewhere.resolve("numbers", "production") == 3
    assert [entry.version for entry in elsewhere.alias_history("numbers", "production")] == [1, 3]
    assert load_predictor(trained.pipeline, elsewhere.get("numbers", "production")).predict([[0.5]]) == [0.5]
    assert elsewhere.put(trained).version == 4
    with pytest.raises(UsageError, match="no alias 'prod'; it has production"):
        elsewhere.get("numbers", "prod")


def test_what_was_pulled_is_kept_and_what_is_damaged_is_pulled_again(
    bucket: str, s3: Any, trained: TrainedModel, tmp_path: Path
) -> None:
    open_store(bucket, tmp_path / "here").put(trained)
    store = open_store(bucket, tmp_path / "elsewhere")
    files = store.get("numbers").files
    (files / "mean").write_text("9.9")
    assert (store.get("numbers").files / "mean").read_text() == "0.5"

    key = next(key for key in keys(s3, bucket) if key.endswith("/mean"))
    s3.put_object(Bucket="models", Key=f"{bucket.removeprefix('s3://models/')}/{key}", Body=b"9.9")
    assert (store.get("numbers").files / "mean").read_text() == "0.5"  # from the cache
    with pytest.raises(StoreError, match="mean was changed after it was stored"):
        open_store(bucket, tmp_path / "third").get("numbers")


@pytest.mark.parametrize("name", ["model.pkl", "more/model.pkl"])
def test_an_object_that_the_manifest_does_not_list_is_noticed(
    bucket: str, s3: Any, trained: TrainedModel, tmp_path: Path, name: str
) -> None:
    store = open_store(bucket, tmp_path / "here")
    version = store.put(trained)
    prefix = f"{bucket.removeprefix('s3://models/')}/numbers/{version.manifest.folder}"
    s3.put_object(Bucket="models", Key=f"{prefix}/", Body=b"")  # as a console makes a folder
    assert store.get("numbers").version == 1
    s3.put_object(Bucket="models", Key=f"{prefix}/{name}", Body=b"x")
    for each in (store, open_store(bucket, tmp_path / "elsewhere")):
        with pytest.raises(StoreError, match=rf"its file {name} is not in its manifest"):
            each.get("numbers")


def test_a_big_file_is_uploaded_in_parts_with_progress(bucket: str, tmp_path: Path) -> None:
    messages: list[str] = []
    open_store(bucket, tmp_path / "here").put(an_app(30).train(), progress=messages.append)
    assert messages[0] == "upload weights: 8 of 31 MB"
    assert messages[-1] == "upload weights: 31 of 31 MB"
    messages.clear()
    version = open_store(bucket, tmp_path / "elsewhere").get("numbers", progress=messages.append)
    assert messages[-1] == "download weights: 31 of 31 MB"
    assert (version.files / "weights").stat().st_size == 30 << 20


def test_eight_writers_at_once_over_a_bad_network(
    bucket: str, s3_server: str, trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store("source", tmp_path).put(trained)
    with faults.proxy(s3_server, rate=0.1) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        writers = [writer(tmp_path / "source", bucket, tmp_path / str(number), rounds=3) for number in range(8)]
        outputs = [process.communicate(timeout=120) for process in writers]
    assert [process.returncode for process in writers] == [0] * 8, [error for _, error in outputs]
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    numbers = sorted(int(line) for output, _ in outputs for line in output.split()[1:])
    assert numbers == list(range(1, 25))
    store = open_store(bucket, tmp_path / "reader")
    assert_whole(store, 24)
    assert sorted(entry.version for entry in store.alias_history("numbers", "staging")) == numbers


def test_a_writer_killed_in_the_middle_of_an_upload_leaves_no_version(
    bucket: str, trained: TrainedModel, tmp_path: Path
) -> None:
    open_store("source", tmp_path).put(an_app(24).train())
    for pause in (0.05, 0.15, 0.3):
        process = writer(tmp_path / "source", bucket, tmp_path / "killed", rounds=50)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(pause)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    store = open_store(bucket, tmp_path / "reader")
    before = len(store.list_numbers("numbers"))
    assert_whole(store, before)
    assert store.put(trained).version == before + 1


def test_a_service_without_conditional_writes_is_refused(
    bucket: str, dynamodb_server: str, trained: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto stands in for an old service, for it does not check that the condition was signed."""
    boto3.client("s3", endpoint_url=dynamodb_server, region_name="us-east-1").create_bucket(Bucket="old")
    with faults.proxy(dynamodb_server, rate=0, drop_headers=("if-none-match",)) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        for use in (lambda store: store.check_writable(), lambda store: store.put(trained)):
            with pytest.raises(StoreError, match="not support conditional writes: trainers would overwrite each other"):
                use(open_store("s3://old/x", tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", dynamodb_server)
    assert open_store("s3://old/x", tmp_path).put(trained).version == 1


@pytest.mark.parametrize(
    ("environment", "what", "todo"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wr0ng"}, r"not accept the credentials \(SignatureDoesNotMatch\)", "Check AWS_"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, r"does not accept the credentials \(InvalidAccessKeyId\)", "Check AWS_"),
        ({"AWS_ACCESS_KEY_ID": "stranger"}, r"denies access to these credentials \(AccessDenied\)", "permission"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached", "Check the network, and AWS_ENDPOINT_URL"),
    ],
)  # fmt: skip
def test_obstacles_are_reported_without_secrets(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], what: str, todo: str
) -> None:
    monkeypatch.setattr("mlapp.store.object_clients.RETRIES", {"max_retries": 1})
    monkeypatch.setattr("mlapp.store.object_storage.PAUSES", (0.01,))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for use in (lambda store: store.list_numbers("numbers"), lambda store: store.check_writable()):
        with pytest.raises(StoreError, match=what) as caught:
            use(open_store(bucket, tmp_path))
        assert todo in caught.value.todo
        assert "\n" not in caught.value.what
        assert not any(secret in str(caught.value) for secret in ("secret", "wr0ng", "nobody"))


def test_a_bucket_that_is_not_there(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="s3://nowhere/x does not exist: no such bucket") as caught:
        open_store("s3://nowhere/x", tmp_path).list_numbers("numbers")
    assert "Create the bucket" in caught.value.todo


@pytest.mark.parametrize(
    "url", ["s3://key:hidden@models/x", "s3://", "s3://models/x?secret=hidden", "ftp://a:hidden@b"]
)
def test_an_invalid_url_is_reported_without_its_secrets(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url, tmp_path)
    assert "hidden" not in str(caught.value)


def test_the_bucket_copied_by_any_tool_is_a_store_in_a_folder(
    bucket: str, s3: Any, trained: TrainedModel, tmp_path: Path
) -> None:
    store = open_store(bucket, tmp_path / "here")
    store.promote("numbers", store.put(trained).version, "production")
    for key in keys(s3, bucket):  # as `aws s3 sync` does in a pod's init container
        path = tmp_path / "model" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file("models", f"{bucket.removeprefix('s3://models/')}/{key}", str(path))
    assert open_store("model", tmp_path).get("numbers", "production").version == 1


def test_the_command_line_copies_versions_between_stores(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mlapp(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["mlapp", "models", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code in (0, None), capsys.readouterr().err
        return capsys.readouterr().out.strip()

    (tmp_path / "app.py").write_text("from tests.integration.data.test_store import an_app\napp = an_app()\n")
    monkeypatch.chdir(tmp_path)
    local = open_store(".mlapp/store", tmp_path)
    for _ in range(2):
        local.put(an_app().train())
    assert mlapp("push", "2", "--to", bucket) == "1"
    assert mlapp("push", "2", "--to", bucket) == "1"  # it is there already

    monkeypatch.setenv("MLAPP_STORE", bucket)
    assert mlapp("push", "1") == "2"  # of the folder that was the store before
    assert mlapp("promote", "1", "production") == ""
    assert [version["version"] for version in json.loads(mlapp("list", "--json"))] == [1, 2]
    assert "size (test)" in mlapp("compare", "1", "2")
    assert (Path(mlapp("pull", "production")) / "mean").read_text() == "0.5"
    assert mlapp("pull", "production", "--to", "copy") == "1"
    copied = open_store("copy", tmp_path).manifest("numbers", 1)
    assert copied.created == local.manifest("numbers", 2).created
    assert copied.metrics == {"train": {"size": 0.0}, "test": {"size": 0.0}}
