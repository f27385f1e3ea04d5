"""PyTorch: the default loop, resuming, and its errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris
from torch import nn

from mlapp import App, frameworks
from mlapp.errors import DataError, ModelError, UsageError
from mlapp.frameworks.pytorch.training_loop import TrainingSettings, describe_training_settings
from mlapp.prediction import load_predictor
from mlapp.progress import Progress, listen_progress

PYTORCH = frameworks.get_framework("pytorch")
IRIS = load_iris(as_frame=True).frame
FEATURES, TARGET = IRIS.drop(columns="target"), IRIS["target"]


def net(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, outputs))


def test_text_classes_are_kept_with_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app = App("flowers", target="kind")
    names = np.array(["setosa", "versicolor", "virginica"])

    @app.data_reader
    def read() -> pd.DataFrame:
        return IRIS.assign(kind=names[TARGET]).drop(columns="target")

    @app.model
    def build(hidden: int = 4) -> nn.Module:
        return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    trained = app.train(hidden=32, learning_rate=0.05)
    assert trained.metrics["test"]["accuracy"] > 0.8
    version = app.save(trained)
    assert {*version.manifest.files} == {"model.safetensors", "baseline.json"}
    loaded = load_predictor(app, version)
    assert loaded.predict(FEATURES).tolist() == PYTORCH.predictor(trained.estimator, FEATURES).tolist()
    assert set(loaded.predict(FEATURES)) <= set(names)


def test_the_same_data_and_parameters_give_the_same_model() -> None:
    app = App("flowers", target="target")
    app.data_reader(lambda: IRIS)

    @app.model
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))

    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = app.train(epochs=3)
    assert torch.rand(1) == expected, "the user's own random numbers go on as if nothing had been trained"
    second = app.train(epochs=3)
    assert second.metrics == first.metrics
    for name, weights in first.estimator.state_dict().items():
        torch.testing.assert_close(second.estimator.state_dict()[name], weights, rtol=0, atol=0)


def test_numbers_are_learned_with_one_output() -> None:
    model = PYTORCH.trainer(net(1), FEATURES, TARGET.astype(float), epochs=60, learning_rate=0.02)
    assert PYTORCH.evaluator(model, FEATURES, TARGET)["r2"] > 0.8
    assert PYTORCH.predictor(model, FEATURES.head(1)).shape == (1,)


def test_it_stops_early_keeps_the_best_epoch_and_tells_how_far_it_is() -> None:
    messages: list[Progress] = []
    with listen_progress(messages.append):
        model = PYTORCH.trainer(net(), FEATURES, TARGET, epochs=500, learning_rate=0.1, patience=3)
    assert 3 < len(messages) < 500
    losses = [progress.metrics["val_loss"] for progress in messages]
    assert min(losses) == losses[-4]
    assert str(messages[0]).startswith("1 of 500, loss ")
    assert PYTORCH.evaluator(model, FEATURES, TARGET)["accuracy"] > 0.8


KILLED = """
import os, signal
from mlapp.progress import listen_progress
from tests_net import PYTORCH, net, FEATURES, TARGET
def kill(progress):
    if progress.step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
with listen_progress(kill):
    PYTORCH.trainer(net(), FEATURES, TARGET, epochs=20, checkpoint_every=0)
"""


def test_a_killed_training_continues_and_ends_where_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests_net.py").write_text(Path(__file__).read_text())
    killed = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert killed.returncode == -signal.SIGKILL

    messages: list[Progress] = []
    with listen_progress(messages.append):
        resumed = PYTORCH.trainer(net(), FEATURES, TARGET, epochs=20, checkpoint_every=0)
    assert messages[0].step == 8  # the seventh was the last that was written before it was killed
    assert not list((tmp_path / ".mlapp/checkpoints").iterdir())
    whole = PYTORCH.trainer(net(), FEATURES, TARGET, epochs=20, checkpoint_every=0)
    for name, weights in whole.state_dict().items():
        assert torch.equal(weights, resumed.state_dict()[name]), name


def test_a_training_that_an_earlier_mlapp_began_is_found() -> None:
    settings = TrainingSettings(
        epochs=9,
        batch_size=32,
        learning_rate=0.001,
        validation=0.1,
        patience=5,
        seed=0,
        checkpoint_every=30.0,
        weight_decay=0.01,
        device="auto",
    )
    assert describe_training_settings(settings) == (
        "TrainingSettings(epochs=9, batch_size=32, learning_rate=0.001, weight_decay=0.01, validation=0.1, "
        "patience=5, device='auto', seed=0, checkpoint_every=30.0)"
    )


def test_a_checkpoint_that_is_cut_off_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    with pytest.raises(Stop), listen_progress(stop):
        PYTORCH.trainer(net(), FEATURES, TARGET, checkpoint_every=0)
    [file] = (tmp_path / ".mlapp/checkpoints").iterdir()
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ModelError, match="is truncated or damaged") as raised:
        PYTORCH.trainer(net(), FEATURES, TARGET, checkpoint_every=0)
    assert raised.value.todo.startswith("Delete it")


def test_a_loss_that_is_no_number() -> None:
    with pytest.raises(ModelError, match=r"The loss became (nan|inf) in epoch \d+, batch \d+") as raised:
        PYTORCH.trainer(net(1), FEATURES * 1e18, TARGET.astype(float), learning_rate=1e9)
    assert "Lower learning_rate" in raised.value.todo


def test_features_that_are_no_numbers() -> None:
    with pytest.raises(DataError, match="Column 'city' contains"):
        PYTORCH.trainer(net(), FEATURES.assign(city="Bern"), TARGET)
    with pytest.raises(DataError, match=r"Column 'petal width \(cm\)' of the features has missing"):
        PYTORCH.trainer(net(), FEATURES.assign(**{"petal width (cm)": np.nan}), TARGET)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="The device 'cuda' cannot be used here") as raised:
        PYTORCH.trainer(net(), FEATURES, TARGET, device="cuda")
    assert "device=cpu" in raised.value.todo


def test_a_module_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot take features of the shape \[150, 3\]"):
        PYTORCH.trainer(net(), FEATURES.iloc[:, :3], TARGET)
    with pytest.raises(ModelError, match="12 classes, but the model has 3 outputs"):
        PYTORCH.trainer(net(), FEATURES, TARGET.index.to_series() % 12)
    PYTORCH.save(net(), tmp_path, "safetensors", ())
    with pytest.raises(ModelError, match="do not fit the module that the app's model function builds"):
        PYTORCH.restore(net(5), tmp_path)
