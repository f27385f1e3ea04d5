"""Training on data larger than memory, in parts from the database to the trainer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import SGDClassifier

from mlapp import App
from mlapp.errors import DataError

TRAINED = """
import json, resource, sys
from mlapp.training import streaming
from tests.integration.data.test_streaming import an_app
streaming.HELD_OUT_ROWS = 20_000
app = an_app()
app.train(rows=150_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
trained = app.train(rows=int(sys.argv[1]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
field = trained.schema.features.fields[0]
print(json.dumps([trained.rows, after - before, trained.metrics["test"]["accuracy"], field.minimum, field.maximum]))
"""


def an_app() -> App:
    app = App("clicks", target="clicked")
    columns = ", ".join(f"sin(i * {n}) AS x{n}" for n in range(1, 20))
    query = f"SELECT i AS number, {columns}, CAST(sin(i * 3) > 0 AS INTEGER) AS clicked FROM range(:rows) AS r(i)"
    app.data_reader.sql("duckdb://", query, rows=int, chunks=20_000)
    app.feature_transformer(lambda features: features.drop(columns="number").astype("float64"))
    app.model(lambda: SGDClassifier(random_state=0))

    @app.trainer
    def train(model: SGDClassifier, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> SGDClassifier:
        for x, y in zip(features, target, strict=True):
            model.partial_fit(x, y.astype(int), classes=[0, 1])
        return model

    @app.evaluator
    def evaluate(model: SGDClassifier, features: pd.DataFrame, target: pd.Series) -> dict[str, float]:
        return {"accuracy": model.score(features, target.astype(int))}

    return app


def test_memory_does_not_grow_with_the_data() -> None:
    """A million rows of 21 columns are 168 MB as a table, and joined and split they were thrice that."""
    done = subprocess.run([sys.executable, "-c", TRAINED, "1000000"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, kilobytes, accuracy, lowest, highest = json.loads(done.stdout)
    assert (rows, lowest, highest >= 999_990) == (1_000_000, 0, True)
    assert kilobytes < 120_000  # some of it is the allocators' slack: the more parts, the less of it is new
    assert accuracy > 0.9


def a_small_app(data: list[pd.DataFrame] | pd.DataFrame) -> App:
    app = App("small", target="y")
    app.data_reader(lambda: iter(data) if isinstance(data, list) else data)
    app.model(lambda: SGDClassifier(random_state=0))

    @app.trainer
    def train(model: SGDClassifier, features: Iterator[pd.DataFrame], target: Iterator[pd.Series]) -> SGDClassifier:
        for x, y in zip(features, target, strict=True):
            model.partial_fit(x, y, classes=[0, 1])
        return model

    return app


def a_part(low: float, high: float) -> pd.DataFrame:
    x = np.linspace(low, high, 100)
    return pd.DataFrame({"x": x, "y": (x > 0).astype(int)})


def test_the_schema_and_the_metrics_are_of_all_parts() -> None:
    trained = a_small_app([a_part(-5, 5), a_part(-1, 9)]).train()
    assert (trained.rows, trained.columns, len(trained.fingerprint)) == (200, 2, 64)
    assert trained.schema.features.fields[0].maximum == pytest.approx(9, abs=0.5)
    assert set(trained.metrics) == {"train", "test"}
    again = a_small_app([a_part(-5, 5), a_part(-1, 9)]).train()
    assert again.fingerprint == trained.fingerprint
    assert a_small_app([a_part(-1, 9), a_part(-5, 5)]).train().fingerprint != trained.fingerprint


def test_a_part_with_other_columns_is_refused() -> None:
    with pytest.raises(DataError, match="has different columns from the first: z"):
        a_small_app([a_part(-5, 5), a_part(-1, 1).assign(z=1)]).train()


def test_no_parts_are_no_data() -> None:
    with pytest.raises(DataError, match="returned no rows"):
        a_small_app([]).train()


def test_a_whole_table_comes_as_one_part() -> None:
    assert a_small_app(a_part(-1, 1)).train().rows == 100
