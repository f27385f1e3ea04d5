"""The store: a version is complete or absent, also if its writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from mlapp import App
from mlapp.errors import ModelError, StoreError, UsageError
from mlapp.model import TrainedModel
from mlapp.prediction import load_predictor
from mlapp.store import Store, open_store
from tests.mounts import mount


class Ridge(LogisticRegression):
    """A type of the user's own, which skops does not know."""


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
def store(tmp_path: Path) -> Store:
    return open_store("models", tmp_path)


def test_a_version_is_a_number_that_grows_by_one(store: Store, trained: TrainedModel) -> None:
    assert [store.put(trained).version for _ in range(3)] == [1, 2, 3]
    assert store.list_numbers("numbers") == [1, 2, 3]
    assert store.apps() == ["numbers"]


def test_a_manifest_holds_what_a_reader_will_ask_for(store: Store, trained: TrainedModel) -> None:
    manifest = store.put(trained).manifest
    assert manifest.parameters["C"] == 1.0
    assert set(manifest.metrics) == {"train", "test"}
    assert manifest.schema.features.names == ["x"]
    assert manifest.libraries["scikit-learn"]
    assert (manifest.framework, manifest.model_format, manifest.model) == ("sklearn", "skops", "LogisticRegression")
    assert (manifest.data.rows, len(manifest.data.fingerprint)) == (40, 64)
    assert len(manifest.files["model.skops"].sha256) == 64


def test_a_stored_model_predicts_as_the_trained_one(store: Store, trained: TrainedModel) -> None:
    version = store.put(trained)
    assert load_predictor(trained.pipeline, store.get("numbers", version.version)).predict(
        [[0.5], [-0.5]]
    ).tolist() == [1, 0]


def test_the_number_of_a_deleted_version_is_never_given_again(store: Store, trained: TrainedModel) -> None:
    store.put(trained)
    store.put(trained)
    store.delete("numbers", 2)
    assert store.list_numbers("numbers") == [1]
    assert store.put(trained).version == 3
    with pytest.raises(UsageError, match="has no version 2; it has 1, 3"):
        store.get("numbers", 2)


def test_what_is_old_and_has_no_alias_may_go(store: Store, trained: TrainedModel) -> None:
    for _ in range(4):
        store.put(trained)
    store.promote("numbers", 1, "production")
    assert [version.version for version in store.list_expendable("numbers", 2)] == [2]
    assert store.list_expendable("numbers", 9) == []


def test_an_alias_moves_and_keeps_its_history(store: Store, trained: TrainedModel) -> None:
    for _ in range(2):
        store.put(trained)
    store.promote("numbers", 1, "production")
    store.promote("numbers", "latest", "production")
    assert store.aliases("numbers") == {"production": 2}
    assert [entry.version for entry in store.alias_history("numbers", "production")] == [1, 2]
    assert store.resolve("numbers", "production") == 2
    with pytest.raises(UsageError, match="Version 2 of 'numbers' has the alias production"):
        store.delete("numbers", 2)


@pytest.mark.parametrize("alias", ["latest", "3", "a/b", "", "../x"])
def test_a_name_that_could_be_mistaken_is_no_alias(store: Store, trained: TrainedModel, alias: str) -> None:
    store.put(trained)
    with pytest.raises(UsageError, match="cannot be an alias"):
        store.promote("numbers", 1, alias)


def test_an_unknown_alias_suggests_the_nearest(store: Store, trained: TrainedModel) -> None:
    store.put(trained)
    store.promote("numbers", 1, "production")
    with pytest.raises(UsageError, match=r"no alias 'prodution'; it has production. Did you mean 'production'\?"):
        store.get("numbers", "prodution")


def test_a_changed_file_is_refused(store: Store, trained: TrainedModel) -> None:
    version = store.put(trained)
    (version.files / "model.skops").write_bytes(b"something else")
    with pytest.raises(StoreError, match=r"model.skops was changed after it was stored"):
        store.get("numbers")


def test_a_missing_file_is_refused(store: Store, trained: TrainedModel) -> None:
    version = store.put(trained)
    (version.files / "model.skops").unlink()
    with pytest.raises(StoreError, match=r"model.skops is missing"):
        store.get("numbers")


def test_a_store_of_a_newer_mlapp_is_refused(store: Store, trained: TrainedModel, tmp_path: Path) -> None:
    store.put(trained)
    (tmp_path / "models/store.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match="from a newer mlapp"):
        store.list_numbers("numbers")
    with pytest.raises(StoreError, match="from a newer mlapp"):
        store.put(trained)


def test_a_type_that_was_not_declared_trusted_is_refused_when_it_is_saved(store: Store) -> None:
    with pytest.raises(ModelError, match=r"not declared trusted: .*test_store.Ridge"):
        store.put(an_app(Ridge).train())
    assert store.list_numbers("numbers") == []


def test_a_type_that_is_declared_trusted_is_stored_and_loaded(store: Store) -> None:
    app = an_app(Ridge, trusted=[Ridge])
    store.put(app.train())
    assert isinstance(load_predictor(app, store.get("numbers")).estimator, Ridge)


def test_joblib_is_an_opt_in_with_a_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    app = an_app(format="joblib")
    store.put(app.train())
    load_predictor(app, store.get("numbers"))
    assert "model.joblib is a pickle: loading it runs the code in it" in caplog.text


def test_a_model_that_cannot_be_pickled_leaves_no_version(store: Store, tmp_path: Path) -> None:
    app = App("numbers", target="y")
    app.data_reader(lambda: pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [0, 1, 0, 1]}))

    @app.model(format="joblib")
    def build() -> Any:
        from sklearn.pipeline import make_pipeline

        return make_pipeline(FunctionTransformer(lambda x: x), LogisticRegression())

    with pytest.raises(ModelError, match="cannot be pickled"):
        store.put(app.train(test_size=0))
    assert list((tmp_path / "models/numbers/files").iterdir()) == []


def test_a_saver_and_a_loader_of_the_users_own(store: Store) -> None:
    app = an_app()

    @app.saver
    def save(model: LogisticRegression, folder: Path) -> None:
        np.savez(folder / "weights.npz", coef=model.coef_, intercept=model.intercept_, classes=model.classes_)

    @app.loader
    def read(folder: Path) -> LogisticRegression:
        weights, model = np.load(folder / "weights.npz"), LogisticRegression()
        model.coef_, model.intercept_, model.classes_ = weights["coef"], weights["intercept"], weights["classes"]
        return model

    version = store.put(app.train())
    assert list(version.manifest.files) == ["baseline.json", "weights.npz"]
    assert load_predictor(app, store.get("numbers")).predict([[0.5]]).tolist() == [1]


def test_eight_writers_at_once_lose_and_double_nothing(store: Store, trained: TrainedModel) -> None:
    numbers: list[int] = []

    def write() -> None:
        for _ in range(5):
            numbers.append(store.put(trained).version)
            store.promote("numbers", "latest", "staging")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 41))
    assert store.list_numbers("numbers") == list(range(1, 41))
    assert len(store.alias_history("numbers", "staging")) == 40
    for number in (1, 20, 40):
        store.get("numbers", number)


def test_writers_killed_at_any_instant_leave_a_readable_store(store: Store, trained: TrainedModel) -> None:
    def write() -> int:
        writer = os.fork()
        if writer == 0:
            while True:
                store.put(trained)
                store.promote("numbers", "latest", "production")
        return writer

    for pause in (0.001, 0.004, 0.013, 0.034):
        before = len(store.list_numbers("numbers"))
        writers = [write() for _ in range(3)]
        while len(store.list_numbers("numbers")) < before + 3:
            time.sleep(0.001)
        for writer in writers:  # while the others go on
            time.sleep(pause)
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)

    numbers = store.list_numbers("numbers")
    assert numbers == list(range(1, len(numbers) + 1))
    folders = {store.get("numbers", number).manifest.folder for number in numbers}
    assert len(folders) == len(numbers)
    assert store.resolve("numbers", "production") in numbers
    assert store.put(trained).version == len(numbers) + 1


def test_a_full_disk_is_an_error_that_leaves_the_store_as_it_was(tmp_path: Path, trained: TrainedModel) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mount(disk, "-t", "tmpfs", "-o", "size=128k", "tmpfs"):
        store = open_store("models", disk)
        store.put(trained)
        (disk / "filler").write_bytes(b"x" * 90_000)
        before = store.list_numbers("numbers")
        with pytest.raises(StoreError, match="No space left on device"):
            for _ in range(40):
                store.put(trained)
                before = store.list_numbers("numbers")
        assert store.list_numbers("numbers") == before
        (disk / "filler").unlink()
        assert store.put(trained).version == len(before) + 1


def test_a_store_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot use"):
        open_store("models", tmp_path).check_writable()


ALONE = """
import sys
import pandas as pd
from sklearn.linear_model import LogisticRegression
from mlapp import App

app = App("alone", target="y")
app.data_reader(lambda: pd.DataFrame({"x": range(20), "y": [0, 1] * 10}))
app.model(LogisticRegression)
app.save(app.train())
print([name for name in ("torch", "tensorflow", "xgboost", "lightgbm", "onnxruntime") if name in sys.modules])
"""


def test_storing_a_model_of_scikit_learn_imports_no_other_framework(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
