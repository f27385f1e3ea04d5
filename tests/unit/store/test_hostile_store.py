"""A writer of a store chooses its models, but cannot choose how they are loaded or touch anything outside the store."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import obstore
import pandas as pd
import pytest
from obstore.store import MemoryStore
from sklearn.base import ClassifierMixin
from sklearn.linear_model import LogisticRegression
from xgboost import XGBClassifier

from mlapp import App
from mlapp.errors import MlappError, ModelError, StoreError, UsageError
from mlapp.model import TrainedModel
from mlapp.prediction import load_predictor
from mlapp.store import Store, open_store
from mlapp.store.folder_storage import FolderStorage
from mlapp.store.manifest import StoredFile
from mlapp.store.object_storage import ObjectStorage


def an_app(model: Any = LogisticRegression, **options: Any) -> App:
    app = App("numbers", target="y")
    x = np.linspace(-1, 1, 40)
    app.data_reader(lambda: pd.DataFrame({"x": x, "y": (x > 0).astype(int)}))
    app.model(model, **options)
    return app


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return an_app().train()


@pytest.fixture
def store(tmp_path: Path, trained: TrainedModel) -> Store:
    """A store that holds version 1."""
    store = open_store("models", tmp_path)
    store.put(trained)
    return store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models" / "numbers"


def edit(root: Path, **values: Any) -> None:
    """Change the manifest of version 1, as a writer of the store can."""
    file = root / "versions" / "000001.json"
    file.chmod(0o644)
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def files_of(root: Path) -> Path:
    return next((root / "files").iterdir())


def described(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def plant_pickle(root: Path, ran: Path, framework: str) -> None:
    for file in files_of(root).iterdir():
        file.unlink()
    joblib.dump(Bomb(ran), files_of(root) / "model.joblib")
    content = (files_of(root) / "model.joblib").read_bytes()
    edit(root, framework=framework, model_format="joblib", files={"model.joblib": described(content)})


@pytest.mark.parametrize("framework", ["sklearn", "python"])
def test_a_manifest_does_not_make_an_app_read_a_pickle(
    framework: str, store: Store, root: Path, tmp_path: Path
) -> None:
    plant_pickle(root, tmp_path / "ran", framework)
    with pytest.raises(ModelError) as raised:
        load_predictor(an_app(), store.get("numbers", 1))
    assert "@app.model(format='joblib')" in raised.value.todo or "annotate the model function" in raised.value.todo
    assert not (tmp_path / "ran").exists()


def test_a_version_without_a_models_file_is_refused(store: Store, root: Path) -> None:
    for file in files_of(root).glob("model*"):
        file.unlink()
    edit(root, files={file.name: described(file.read_bytes()) for file in files_of(root).iterdir()})
    with pytest.raises(ModelError, match="has no file of a model that was saved as 'skops' by sklearn"):
        load_predictor(an_app(), store.get("numbers", 1))


def test_an_app_that_leaves_its_framework_open_reads_no_pickle_either(store: Store, root: Path, tmp_path: Path) -> None:
    plant_pickle(root, tmp_path / "ran", "python")
    with pytest.raises(ModelError, match=r"saved as 'joblib'; app 'numbers' declares none for python"):
        load_predictor(an_app(lambda: LogisticRegression()), store.get("numbers", 1))
    assert not (tmp_path / "ran").exists()


def test_an_app_that_declares_pickle_reads_one(store: Store) -> None:
    app = an_app(format="joblib")
    version = store.put(app.train())
    assert load_predictor(app, store.get("numbers", version.version)).predict([[0.5]]).tolist() == [1]
    # The safe format needs no declaration: versions from before the app changed its format still load.
    assert load_predictor(app, store.get("numbers", 1)).predict([[0.5]]).tolist() == [1]


def build() -> LogisticRegression:
    return LogisticRegression()


@pytest.mark.parametrize("model", [LogisticRegression, build])
def test_a_version_of_another_framework_is_refused(model: Any, store: Store) -> None:
    other = an_app(XGBClassifier, format="json")
    version = store.put(other.train(n_estimators=2))
    with pytest.raises(ModelError, match=r"uses the framework 'xgboost'; app 'numbers' declares one of 'sklearn'"):
        load_predictor(an_app(model), version)
    with pytest.raises(ModelError, match=r"saved as 'json'; app 'numbers' declares 'ubj'") as raised:
        load_predictor(an_app(XGBClassifier), version)
    assert "@app.model(format='json')" in raised.value.todo
    assert load_predictor(other, version).predict([[0.5]]).tolist() == [1]


def open_type() -> ClassifierMixin:
    return XGBClassifier(n_estimators=2)


def test_a_base_class_of_several_frameworks_declares_none(store: Store) -> None:
    app = an_app(open_type)
    assert load_predictor(app, store.put(app.train())).predict([[0.5]]).tolist() == [1]


def wrong() -> LogisticRegression:
    return XGBClassifier(n_estimators=2)  # type: ignore[return-value]


def test_an_annotation_that_is_wrong_is_reported_before_there_is_a_version(store: Store) -> None:
    with pytest.raises(ModelError, match=r"uses the framework 'xgboost'; app 'numbers' declares one of 'sklearn'"):
        store.put(an_app(wrong).train())
    assert store.list_numbers("numbers") == [1]


NAMES: list[dict[str, Any]] = [
    {"folder": "../../../victim"},
    {"folder": "/victim"},
    {"folder": "files/.."},
    {"folder": "files"},
    {"folder": ""},
    {"files": {}},
    {"files": {"../x": described(b"")}},
    {"files": {"/abs/x": described(b"")}},
    {"files": {"a/../../x": described(b"")}},
    {"files": {"a\\..\\x": described(b"")}},
    {"files": {"C:x": described(b"")}},
    {"files": {"": described(b"")}},
    {"files": {"a\0b": described(b"")}},
    {"files": {"model.skops": {"sha256": "", "size": 0}}},
    {"files": {"model.skops": {"sha256": "0" * 64, "size": -1}}},
    {"app": "../other"},
    {"app": "other"},
    {"version": 7},
    {"version": -1},
    {"framework": "../sklearn"},
    {"model_format": "a/b"},
    {"libraries": {"scikit-learn @ https://evil.example/x": "1"}},
    {"libraries": {"scikit-learn": "1 --index-url https://evil.example"}},
    {"python": "3.11 && true"},
    {"format": "1"},
]


@pytest.mark.parametrize("values", NAMES, ids=map(str, range(len(NAMES))))
def test_a_manifest_whose_names_lead_elsewhere_is_refused_by_everything(
    values: dict[str, Any], store: Store, root: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    edit(root, **values)
    for use in (
        lambda: store.manifest("numbers", 1),
        lambda: store.get("numbers", 1),
        lambda: store.versions("numbers"),
        lambda: open_store("copy", tmp_path).import_version(store.get("numbers", 1)),
    ):
        with pytest.raises(StoreError, match=r"numbers/versions/000001.json of the model store .* (is|belongs to) "):
            use()
    assert store.delete("numbers", 1) == 1  # what cannot be read can be deleted, but for files that it may not name
    assert (victim / "precious").exists()
    assert (root / "files").is_dir()


@pytest.mark.parametrize("name", ["unlisted.bin", "sub/unlisted.bin", ".hidden"])
def test_a_file_that_the_manifest_does_not_list_is_noticed(name: str, store: Store, root: Path) -> None:
    file = files_of(root) / name
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(StoreError, match=rf"its file {name} is not in its manifest"):
        store.get("numbers", 1)


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_a_link_is_not_followed(kind: str, store: Store, root: Path, tmp_path: Path) -> None:
    files = files_of(root)
    outside = tmp_path / "outside"
    if kind == "a file":
        (files / "model.skops").rename(outside)
        (files / "model.skops").symlink_to(outside)
    else:
        outside.mkdir()
        (files / "more").symlink_to(outside)
    with pytest.raises(StoreError, match=r"is a link|is not in its manifest"):
        store.get("numbers", 1)


def test_a_link_in_the_place_of_a_versions_folder(store: Store, root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    files_of(root).parent.rename(victim)
    (root / "files").symlink_to(victim)
    with pytest.raises(StoreError, match="is not a path inside the model store"):
        store.get("numbers", 1)
    with pytest.raises(StoreError, match="is not a path inside the model store"):
        store.delete("numbers", 1)
    assert any(victim.iterdir())


def test_a_link_in_the_place_of_a_folder_that_was_written_to(tmp_path: Path) -> None:
    storage, victim = FolderStorage(tmp_path / "store"), tmp_path / "victim"
    for name in ("1", "2", "3"):
        assert storage.create_key(f"app/log/{name}", b"rows")
    (tmp_path / "store" / "app" / "log").rename(tmp_path / "moved")
    victim.mkdir()
    (tmp_path / "store" / "app" / "log").symlink_to(victim)
    with pytest.raises(StoreError, match="is not a path inside the model store"):
        storage.create_key("app/log/4", b"rows")
    assert not any(victim.iterdir())


def test_a_pipe_in_the_place_of_a_file_does_not_wait_for_a_writer(store: Store, root: Path) -> None:
    (files_of(root) / "model.skops").unlink()
    os.mkfifo(files_of(root) / "model.skops")
    with pytest.raises(StoreError, match="its file model.skops is"):
        store.get("numbers", 1)


def test_a_pipe_in_the_place_of_a_manifest_does_not_wait_for_a_writer(store: Store, root: Path) -> None:
    manifest = root / "versions" / "000001.json"
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(StoreError, match="it is not a regular file"):
        store.get("numbers", 1)


def test_a_folder_in_the_place_of_a_file_is_named(store: Store, root: Path) -> None:
    (files_of(root) / "model.skops").unlink()
    (files_of(root) / "model.skops").mkdir()
    with pytest.raises(StoreError, match="its file model.skops is a link, a folder or a pipe"):
        store.get("numbers", 1)


def test_a_copy_holds_what_the_manifest_lists(store: Store, tmp_path: Path) -> None:
    copy = open_store("copy", tmp_path)
    version = copy.import_version(store.get("numbers", 1))
    assert {path.name for path in version.files.iterdir()} == set(version.manifest.files)


def test_names_in_a_store_that_are_no_names_are_passed_over(store: Store, root: Path) -> None:
    for name in ("a b", "latest", "-x"):
        (root / "aliases" / name).mkdir(parents=True)
        (root / "aliases" / name / "000001.json").write_text('{"version": 1, "moved": "2026-01-01T00:00:00Z"}')
    (root.parent / "no app").mkdir()
    assert store.aliases("numbers") == {}
    assert store.apps() == ["numbers"]
    for name in ("../../x", "latest", ""):
        with pytest.raises(UsageError, match="cannot be an alias"):
            store.alias_history("numbers", name)
    for reference in ("../1", "1/../1", "\0"):
        with pytest.raises(MlappError):
            store.get("numbers", reference)


def test_a_saver_that_writes_a_link_is_refused_before_there_is_a_version(store: Store) -> None:
    app = an_app()

    @app.saver
    def save(model: LogisticRegression, folder: Path) -> None:
        joblib.dump(model, folder / "model")
        (folder / "link").symlink_to("/etc/hostname")

    app.loader(lambda folder: joblib.load(folder / "model"))
    with pytest.raises(ModelError, match="wrote 'link', which a version cannot contain"):
        store.put(app.train())
    assert store.list_numbers("numbers") == [1]


def test_a_manifest_that_claims_a_file_of_any_size_costs_nothing(tmp_path: Path) -> None:
    client = MemoryStore()
    obstore.put(client, "numbers/files/a/model", b"small")
    storage = ObjectStorage(client, "s3://bucket", tmp_path)
    claimed = {"model": StoredFile("0" * 64, 10**18)}
    folder = storage.fetch_folder("numbers/files/a", claimed)
    assert (folder / "model").stat().st_size == 0
