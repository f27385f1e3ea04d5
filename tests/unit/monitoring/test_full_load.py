"""What a server under full load counts and logs, by the clock of 20,000 rows a second."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from prometheus_client import CollectorRegistry

from mlapp import App
from mlapp.config import Monitor
from mlapp.monitoring.batch import JoinedResults
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.own_ids import OwnIds
from mlapp.monitoring.place import Place
from mlapp.monitoring.recorder import Recorder
from mlapp.monitoring.sampling import BITS, find_rows_below, hash_requests
from mlapp.schema.part import Part
from mlapp.serving.inference.served_model import ServedModel, serve_trained_model
from mlapp.store.folder_storage import FolderStorage

COLUMNS = 64
RATE = 20_000
BATCH = 32


class Sums:
    """Predicts the sum of each row's numbers."""

    def fit(self, features: pd.DataFrame, target: pd.Series) -> Sums:
        return self


@pytest.fixture(scope="module")
def model() -> ServedModel:
    app = App("sums", target="y")
    cells = np.random.default_rng(0).normal(size=(200, COLUMNS))
    app.data_reader(lambda: pd.DataFrame(cells, columns=[f"f{at}" for at in range(COLUMNS)]).assign(y=cells[:, 0]))
    app.model(Sums)

    @app.predictor
    def predict(model: Sums, features: np.ndarray) -> list[float]:
        return features.sum(axis=1).tolist()  # type: ignore[no-any-return]

    return serve_trained_model(app.train())


class Load:
    """Batches of answered requests of one replica."""

    def __init__(self, root: Path, model: ServedModel, clock: SimpleNamespace, **settings: str) -> None:
        self.root, self.model, self.clock, self.number = root, model, clock, 0
        place = Place(FolderStorage(root), "sums")
        metrics = MonitorMetrics(CollectorRegistry(), "sums")
        self.recorder = Recorder("sums", Monitor(**settings), place, metrics, lambda: b"new")  # type: ignore[arg-type]
        self.recorder.add_model(model)

    def answer(self, rows: int, name: bytes = b"%d", *, has_own_ids: bool = False) -> None:
        """Record one batch of requests of one row each, whose ids are made of their numbers."""
        numbers = np.arange(self.number, self.number + rows)
        self.number += rows
        cells = numbers[:, None] + np.arange(COLUMNS) / 128
        parts = [Part(1, row.tobytes(), id=name % number) for number, row in zip(numbers, cells, strict=True)]
        parts[0].own_ids = rows if has_own_ids else 0
        results = JoinedResults([Part(rows, cells.tobytes())], [float(number) for number in numbers])
        self.recorder.record_batch(self.model, parts, results, rows, 0.25)

    def run(self, seconds: int) -> None:
        """Answer at full rate, with one look of the recorder each second."""
        for _ in range(seconds):
            for _ in range(RATE // BATCH):
                self.clock.now += BATCH / RATE
                self.answer(BATCH)
            self.recorder.record_and_write()
        self.recorder.write_waiting()

    def read(self) -> pa.Table:
        """The rows of the log, in order."""
        segments = [parquet.read_table(path) for path in self.root.rglob("*.parquet")]
        joined = pa.concat_tables(segments, promote_options="permissive") if segments else pa.table({"time": []})
        return joined.sort_by("time")


@pytest.fixture
def loads(tmp_path: Path, model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> list[Load]:
    """Two replicas that log a sample, and one that logs all."""
    clock = SimpleNamespace(now=1_800_000_000.0)
    clock.time = lambda: clock.now
    monkeypatch.setattr("mlapp.monitoring.recorder.time", clock)
    return [Load(tmp_path / str(at), model, clock, log=log) for at, log in enumerate(["sample", "sample", "all"])]


def hash_ids(ids: pd.Series) -> np.ndarray:
    return hash_requests([text.encode() for text in ids])


def test_replicas_under_load_log_the_rows_with_the_lowest_hashes(loads: list[Load]) -> None:
    first, second, _ = loads
    first.run(6)
    second.answer(10)
    second.run(4)
    tables = [load.read().to_pandas() for load in (first, second)]
    for table, load in zip(tables, (first, second), strict=True):
        assert table["id"].is_unique
        assert (hash_ids(table["id"]) < 2**32 / table["weight"]).all()
        assert (table["f0"] == table["id"].astype(float)).all()
        assert (table["prediction"] == table["f0"]).all()
        assert table["weight"].sum() == pytest.approx(load.number, rel=0.4), "the rows stand for all"
    least = max(table["weight"].max() for table in tables)
    kept = [set(table["id"][hash_ids(table["id"]) < 2**32 / least]) for table in tables]
    assert kept[1] <= kept[0], "what one keeps at the smallest share, the other keeps too"


def test_ids_of_the_server_are_sampled_like_all_others(loads: list[Load]) -> None:
    first, second, _ = loads
    for load, has_own_ids in ((first, True), (second, False)):
        load.clock.now = 1_800_000_000.0
        for turn in range(4 * RATE // BATCH):
            load.clock.now += BATCH / RATE
            load.answer(BATCH - turn % 3, b"0123456789abcdef-%012x", has_own_ids=has_own_ids)
            if turn % (RATE // BATCH) == 0:
                load.recorder.record_and_write()
        load.recorder.record_and_write()
        load.recorder.write_waiting()
    tables = [load.read().to_pandas() for load in (first, second)]
    for table in tables:
        assert (hash_ids(table["id"]) < 2**32 / table["weight"]).all()
        assert (table["id"].str[17:].apply(int, base=16) == table["f0"]).all()
        assert (table["prediction"] == table["f0"]).all()
        assert table["weight"].max() > 100, "most rows are dropped by the hashes of their ids"
    assert set(tables[0]["id"]) == set(tables[1]["id"])


def test_own_ids_are_found_by_their_hashes_or_not_at_all() -> None:
    own, bits = OwnIds(), BITS - 6
    for start in (0, 17, 470, 4_000):
        for count in (1, 2, 32, 500, 96):
            ids = [b"0123456789abcdef-%012x" % number for number in range(start, start + count)]
            found = own.find_requests_below(ids[0], ids[-1], count, bits)
            if start + count > 4_096:
                assert found is None, "the ids differ in more than their last digits"
            else:
                assert found == find_rows_below(hash_requests(ids), None, bits)
            assert own.find_requests_below(ids[0], ids[-1], count + 1, bits) is None, "one id is of another request"


def test_under_load_only_rows_that_are_counted_or_logged_stay_in_memory(loads: list[Load]) -> None:
    load = loads[0]
    load.run(6)
    for _ in range(RATE // BATCH):
        load.answer(BATCH)
    assert sum(batch.waiting for batch in load.recorder._queue) < RATE / 4
    load.answer(30_000)
    assert load.recorder._queue[-1].waiting < 5_000, "the event loop does not take many rows of a large batch"
    load.recorder.record_and_write()
    (counts,) = load.recorder.list_counts()
    assert counts.rows == load.number
    for column in counts.columns.values():
        assert sum(column) == pytest.approx(load.number, abs=64)


def test_all_rows_are_logged_once(loads: list[Load]) -> None:
    load = loads[2]
    for rows in (1, 31, 9_000, 32, 20_000, 1_000):
        load.clock.now += 1.0
        load.answer(rows)
    assert load.recorder._wake.is_set()
    load.recorder.run_turn(is_due=False, is_log_due=False)
    load.recorder.write_waiting()
    assert len(load.read()) == 3 * 7_680, "full segments do not wait for the second"
    load.recorder.record_and_write()
    load.recorder.write_waiting()
    table = load.read().to_pandas()
    assert sorted(table["id"].astype(int)) == list(range(load.number))
    assert (table["id"].astype(float) == table["f0"]).all()
    assert (table["f0"] + 63 / 128 == table["f63"]).all()
    assert (table["prediction"] == table["f0"]).all()
    assert table["latency"].eq(0.25).all()
    assert table["weight"].eq(1.0).all()
    assert table["time"].nunique() == 6


@pytest.mark.parametrize("log", [0, 2], ids=["sample", "all"])
def test_gathered_batches_and_others_are_logged_and_counted_in_their_hour(loads: list[Load], log: int) -> None:
    load, hour = loads[log], 1_800_000_000 // 3600 * 3600
    for at in (0.0, 1.0, 3_599.9, 3_600.1):
        load.clock.now = hour + at
        load.answer(3)
    load.clock.now += 1.0
    keyed = Part(1, np.full(COLUMNS, 12.0).tobytes(), id=b"keyed", keys={"customer": "7"})
    load.recorder.record_batch(load.model, [keyed], [[12.0]], 1, 0.5)
    load.clock.now += 1.0
    pair = Part(2, np.full(2 * COLUMNS, 13.0).tobytes(), id=b"pair")
    load.recorder.record_batch(load.model, [pair], JoinedResults([pair], [13.0, 13.5], [[13.0, 13.5]]), 2, 0.5)
    load.recorder.record_batch(load.model, [pair], [ValueError("no prediction")], 2, 0.5)
    load.recorder.record_and_write()
    load.recorder.write_waiting()
    rows = load.read().to_pandas()
    assert rows["id"].tolist() == [*(str(number) for number in range(12)), "keyed", "pair#0", "pair#1"]
    assert rows["key.customer"].dropna().tolist() == ["7"]
    assert rows["prediction"].tolist() == [*range(12), 12.0, 13.0, 13.5]
    assert rows["latency"].tolist() == [0.25] * 12 + [0.5] * 3
    seconds = rows["time"].astype("datetime64[us, UTC]").astype("int64") / 1e6 - hour
    assert (
        seconds.round(1).tolist() == [0.0] * 3 + [1.0] * 3 + [3_599.9] * 3 + [3_600.1] * 3 + [3_601.1] + [3_602.1] * 2
    )
    assert {folder.parent.name for folder in load.root.rglob("*.parquet")} == {"2027-01-15T08", "2027-01-15T09"}
    assert sorted(counts.rows for counts in load.recorder.list_counts()) == [6, 9]


def test_rows_that_cannot_be_counted_take_no_others_with_them(
    loads: list[Load], caplog: pytest.LogCaptureFixture
) -> None:
    load = loads[0]
    damaged = Part(1, b"short", id=b"damaged")
    load.recorder.record_batch(load.model, [damaged], JoinedResults([damaged], [1.0]), 1, 0.25)
    load.clock.now += 24 * 3600
    load.answer(10)
    load.recorder.record_and_write()
    assert load.recorder.list_counts()[-1].rows == 10
    assert "sums: predictions could not be recorded" in caplog.text
