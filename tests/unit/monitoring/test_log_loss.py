"""What a replica that is killed loses of its log: the rows of less than a second."""

from __future__ import annotations

import io
import itertools
import json
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mlapp.errors import StoreError
from mlapp.monitoring import recorder as recording
from mlapp.monitoring import row_log
from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.place import HOUR, Place
from mlapp.monitoring.segment_merger import MERGE
from mlapp.monitoring.segments import encode_segment_table
from mlapp.monitoring.writer import Writer
from mlapp.store.folder_storage import FolderStorage
from tests.unit.monitoring.service import Service, rows

PATIENCE = 60.0
NOW = 1_800_000_000.0
FOLDER = "log/1/2027-01-15T08"


class Clock:
    """A clock that only waits and turns advance. In the place of the event that wakes the recorder's thread."""

    def __init__(self) -> None:
        self.now = 0.0
        self.has_many_rows = False

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def is_set(self) -> bool:
        return self.has_many_rows

    def clear(self) -> None:
        self.has_many_rows = False


class Turns:
    """A recorder whose turns take a while."""

    def __init__(self, clock: Clock, stopping: threading.Event, *, has_log: bool = True) -> None:
        self.clock, self.stopping, self.has_log = clock, stopping, has_log
        self.log_times: list[float] = []
        self.count_times: list[float] = []

    def run_turn(self, *, is_due: bool, is_log_due: bool, is_last: bool) -> bool:
        if is_due:
            self.count_times.append(self.clock.now)
        if is_log_due:
            self.log_times.append(self.clock.now)
        self.clock.now += 0.25
        if self.clock.now > 20:
            self.stopping.set()
        return is_log_due


@pytest.mark.parametrize("has_log", [True, False])
def test_the_log_is_written_each_half_second_however_long_a_turn_takes(
    has_log: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, stopping = Clock(), threading.Event()
    turns = Turns(clock, stopping, has_log=has_log)
    monkeypatch.setattr(recording, "monotonic", lambda: clock.now)
    recording._run_recorder(weakref.ref(turns), stopping, clock)  # type: ignore[arg-type]
    assert find_periods(turns.count_times[:-1]) == {1.0}
    if has_log:
        assert find_periods(turns.log_times[:-1]) == {0.5}
    else:
        assert len(turns.log_times) == 2, "the first turn and the last one"


def find_periods(times: list[float]) -> set[float]:
    """The differences between consecutive times."""
    return {after - before for before, after in itertools.pairwise(times)}


class SlowMerges(Place):
    """A bucket that is slow to read."""

    def __init__(self, root: Path) -> None:
        super().__init__(FolderStorage(root), "app")
        self.began, self.may_continue = threading.Event(), threading.Event()

    def read_all(self, keys: Iterable[str]) -> list[bytes]:
        self.began.set()
        assert self.may_continue.wait(PATIENCE)
        return super().read_all(keys)


def encode_row(number: int) -> bytes:
    return encode_segment_table(pa.table({"number": [number]}))


def read_numbers(place: Place) -> list[int]:
    keys = [place.key(FOLDER, name) for name in place.names(FOLDER)]
    tables = [parquet.read_table(io.BytesIO(content)) for content in place.read_all(keys)]
    return sorted(number for table in tables for number in table["number"].to_pylist())


def test_a_new_segment_does_not_wait_until_earlier_ones_are_merged(tmp_path: Path) -> None:
    place, written = SlowMerges(tmp_path), threading.Semaphore(0)
    writer = Writer(place, "replica", lambda rows: None, lambda rows: written.release())
    writer.start()
    for number in range(MERGE):
        writer.add_segment("1", NOW, encode_row(number), 1)
        assert written.acquire(timeout=PATIENCE)
    assert place.began.wait(PATIENCE)
    writer.add_segment("1", NOW, encode_row(MERGE), 1)
    assert written.acquire(timeout=PATIENCE)
    place.may_continue.set()
    writer.stop(PATIENCE)
    assert len(place.names(FOLDER)) == 2
    assert read_numbers(place) == list(range(MERGE + 1))


class LostAnswers(FolderStorage):
    """A bucket whose first answer about each segment is lost, although it has stored the segment."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.lost: set[str] = set()

    def create_key(self, key: str, content: Any, *, from_reserve: bool = False) -> bool:
        is_new = super().create_key(key, content)
        if key.endswith(".parquet") and key not in self.lost:
            self.lost.add(key)
            raise StoreError("The bucket cannot be reached.", "Try again.")
        return is_new


def test_rows_are_written_once_if_the_answer_about_their_segment_is_lost(tmp_path: Path) -> None:
    place, written = Place(LostAnswers(tmp_path), "app"), threading.Semaphore(0)
    writer = Writer(place, "replica", lambda rows: None, lambda rows: written.release())
    writer.start()
    writer.add_segment("1", NOW, encode_row(0), 1)
    writer.add_segment("1", NOW, encode_row(1), 1)
    for _ in range(2):
        assert written.acquire(timeout=PATIENCE)
    writer.stop(PATIENCE)
    assert read_numbers(place) == [0, 1]


def test_rows_of_a_segment_that_cannot_be_encoded_are_counted_as_lost(
    service: Service, mlapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, next_hour = row_log.make_log_table, service.now + HOUR

    def fail_for_one_hour(version: str, logged: LoggedRows, *rest: Any) -> pa.Table:
        if logged.times[0] < next_hour:
            raise OverflowError("a value that Arrow cannot store")
        return encode(version, logged, *rest)

    monkeypatch.setattr(row_log, "make_log_table", fail_for_one_hour)
    service.predict(rows(30), "first")
    service.now = next_hour
    service.predict(rows(20), "second")
    service.stop()
    lost = service.registry.get_sample_value("mlapp_monitor_dropped_rows_total", {"model": "loans"})
    logged = json.loads(mlapp("monitor", "sql", "SELECT count(*) AS rows FROM log", "--json").out)
    assert (lost, logged) == (30, [{"rows": 20}])
