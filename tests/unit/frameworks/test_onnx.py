"""ONNX: an exported model answers like the original, or the export is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits, load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import nn

from mlapp import App, onnx_conversion, prediction
from mlapp.errors import DeclarationError, ModelError
from mlapp.frameworks import onnx
from mlapp.schema import infer_schema

IRIS = load_iris(as_frame=True).frame
NAMES = np.array(["setosa", "versicolor", "virginica"])
MIXED = pd.DataFrame({"size": np.arange(60.0), "kind": list("abc") * 20, "y": [0, 1] * 30})


def iris(model: Any, **columns: Any) -> App:
    app = App("flowers", target="target")
    app.data_reader(lambda: IRIS.assign(**columns))
    app.model(lambda: model)
    return app


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(iris(RandomForestClassifier(10, random_state=0), target=NAMES[IRIS["target"]]), id="text classes"),
        pytest.param(iris(make_pipeline(StandardScaler(), LogisticRegression())), id="pipeline"),
        pytest.param(iris(LinearRegression(), target=IRIS["target"].astype(float)), id="regression"),
        pytest.param(iris(xgboost.XGBClassifier(n_estimators=5)), id="xgboost"),
        pytest.param(iris(xgboost.XGBRegressor(n_estimators=5)), id="xgboost regression"),
        pytest.param(iris(lightgbm.LGBMClassifier(n_estimators=5, verbose=-1)), id="lightgbm"),
        pytest.param(
            iris(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), target=NAMES[IRIS["target"]]), id="pytorch"
        ),
    ],
)
def test_the_conversion_answers_as_the_original(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    predictor = prediction.make_predictor(app.train())
    features = IRIS.drop(columns="target")
    converted = onnx_conversion.convert_to_onnx(predictor, features)
    expected, actual = np.asarray(predictor.predict(features)), np.asarray(converted.predict(features))
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, atol=1e-4)
    else:
        assert actual.tolist() == expected.tolist()
    assert len(converted.predict(features.head(1))) == 1


def test_the_runtime_collects_nothing_for_its_maker(tmp_path: Path) -> None:
    """ONNX Runtime 1.32 and later identify the machine to Microsoft by a file, which they make at their import."""
    environment = {name: value for name, value in os.environ.items() if name != onnx.TELEMETRY}
    done = subprocess.run(
        [sys.executable, "-c", "from mlapp.frameworks.onnx import OnnxModel; OnnxModel(b'')"],
        env={**environment, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "It is not an ONNX model" in done.stderr, "the runtime has read it"
    assert list(tmp_path.iterdir()) == []


def test_columns_of_texts_and_numbers() -> None:
    app = App("mixed", target="y")
    app.data_reader(lambda: MIXED)

    @app.model
    def build() -> Any:
        columns = ColumnTransformer([("kind", OneHotEncoder(), ["kind"]), ("size", StandardScaler(), ["size"])])
        return make_pipeline(columns, LogisticRegression())

    predictor = prediction.make_predictor(app.train())
    converted = onnx_conversion.convert_to_onnx(predictor)
    assert [each.name for each in converted.estimator.inputs] == ["size", "kind"]
    assert (
        converted.predict([{"size": 3.0, "kind": "b"}]).tolist()
        == predictor.predict([{"size": 3, "kind": "b"}]).tolist()
    )


def test_a_forest_answers_single_rows_at_least_three_times_as_fast() -> None:
    digits = load_digits(as_frame=True)
    forest = RandomForestClassifier(100, random_state=0).fit(digits.data, digits.target)
    app = App("digits", target="target")
    schema = prediction.ModelSchema(features=infer_schema(digits.data), predictions=prediction.UNKNOWN)
    predictor = prediction.Predictor(app, forest, prediction.frameworks.get_framework("sklearn"), schema)
    converted = onnx_conversion.convert_to_onnx(predictor, digits.data)
    row = digits.data.head(1)

    def seconds(model: Any) -> float:
        clock = time.process_time()
        for _ in range(20):
            model.predict(row)
        return time.process_time() - clock

    assert min(seconds(forest) for _ in range(3)) > 3 * min(seconds(converted.estimator) for _ in range(3))
    assert converted.estimator.predict(digits.data).tolist() == forest.predict(digits.data).tolist()


def test_a_conversion_that_answers_otherwise_is_refused_with_the_worst_difference() -> None:
    with pytest.raises(ModelError, match=r"worst of its predictions is 2\.5 for 2 \(row 1\)"):
        onnx.require_same_onnx_predictions([1.0, 2.0], [1.00001, 2.5])
    with pytest.raises(ModelError, match=r"1 of 2 rows differ, as .*3.* for .*2"):
        onnx.require_same_onnx_predictions([1, 2], [1, 3])
    as_likely = np.array([[0.5, 0.5], [0.1, 0.9]])
    onnx.require_same_onnx_predictions([0, 1], [1, 1], (as_likely, as_likely))


def test_export_writes_a_file_that_can_be_served_as_a_model(mlapp: Callable, project: Callable) -> None:
    root = project()
    assert mlapp("train").code == 0
    ran = mlapp("export", "--onnx")
    assert ran.code == 0, ran.err
    assert "flowers-1.onnx has the same predictions as flowers version 1 on 150 rows." in ran.err

    (root / "notebooks").mkdir()
    again = mlapp("export", "--onnx", "--to", "again.onnx", "--json", cwd=root / "notebooks")
    file = root / "notebooks/again.onnx"
    assert json.loads(again.out) == {"file": str(file), "model": "flowers", "version": 1, "rows": 150}
    assert file.read_bytes() == (root / "flowers-1.onnx").read_bytes()
    refused = mlapp("export", "--onnx", "--to", "nowhere/flowers.onnx", cwd=root)
    assert "nowhere/flowers.onnx cannot be written: No such file or directory" in refused.err

    app = App("flowers", target="target")
    app.data_reader(lambda: IRIS)
    app.model("flowers-1.onnx")
    trained = app.train()
    assert trained.metrics["test"]["accuracy"] > 0.9
    assert app.save().manifest.framework == "onnx"
    assert app.load().predict(IRIS.drop(columns="target")).tolist() == app.predict().tolist()

    file = root / "flowers-1.onnx"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"flowers-1\.onnx: It is not an ONNX model, or is truncated"):
        app.train()


def test_what_cannot_be_exported_is_named() -> None:
    class Own:
        def fit(self, X: Any, y: Any) -> Any:
            return self

        def predict(self, X: Any) -> list[int]:
            return [0] * len(X)

    with pytest.raises(ModelError, match="Models of python cannot be converted to ONNX: a Own"):
        onnx_conversion.convert_to_onnx(prediction.make_predictor(iris(Own()).train()))
    with pytest.raises(DeclarationError, match="An ONNX model cannot be trained"):
        onnx.OnnxFramework().trainer(object(), None)


@pytest.mark.parametrize("way", ["runtime", "format"])
def test_probabilities_keep_the_names_of_their_classes(way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = App("named", target="target", predict="proba")
    app.data_reader(lambda: IRIS.assign(target=NAMES[IRIS["target"]]))
    app.model(LogisticRegression, format="onnx" if way == "format" else None)
    app.train()
    app.save()
    predictor = app.load()
    if way == "runtime":
        predictor = onnx_conversion.convert_to_onnx(predictor)
    (row,) = predictor.predict([[5.1, 3.5, 1.4, 0.2]]).to_dict("records")
    assert list(row) == ["setosa", "versicolor", "virginica"]
    assert row["setosa"] > 0.9
