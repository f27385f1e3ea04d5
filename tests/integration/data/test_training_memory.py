"""A table passes through all stages with at most one copy of it in memory."""

import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from mlapp import App

ROWS, COLUMNS = 1_000_000, 8
SPARE = 0.9
"""Of the table: what the allocators round up, threads, and the rows that are worked on. Less than another copy."""


class Nearest:
    """A model that copies nothing."""

    def fit(self, features: pd.DataFrame, target: pd.Series) -> "Nearest":
        return self

    def predict(self, features: pd.DataFrame) -> np.ndarray:
        return features["c0"].to_numpy()

    def score(self, features: pd.DataFrame, target: pd.Series) -> float:
        return float(np.abs(self.predict(features) - target).mean())


def read_peak() -> int:
    """The largest resident size since it was reset, in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_training_from_parquet_holds_the_table_and_one_copy(tmp_path: pathlib.Path) -> None:
    numbers = np.random.default_rng(0)
    columns = {f"c{at}": numbers.random(ROWS) for at in range(COLUMNS)}
    table = pa.table({**columns, "y": columns["c0"]})
    size = table.nbytes
    parquet.write_table(table, tmp_path / "large.parquet", compression="none", use_dictionary=False)
    parquet.write_table(table.slice(0, 1000), tmp_path / "small.parquet")
    del columns, table

    app = App("large", target="y")
    app.data_reader.files(str(tmp_path / "{name}.parquet"), name="small")
    app.model(Nearest, format="joblib")
    app.train()  # imports what training needs
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins at the present size
    before = read_peak()
    trained = app.train(name="large")

    assert trained.rows == ROWS
    assert read_peak() - before < (2 + SPARE) * size
