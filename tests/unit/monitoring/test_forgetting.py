"""A person's rows are deleted while a replica merges its segments."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from mlapp.monitoring import segment_merger
from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.database import list_database_log_keys, list_truth_keys
from mlapp.monitoring.forgetting import forget_person_rows
from mlapp.monitoring.log_rows import make_log_table
from mlapp.monitoring.place import Place
from mlapp.monitoring.segment_merger import MERGE, SegmentMerger
from mlapp.monitoring.segments import Segment, encode_segment_table
from mlapp.monitoring.truth import Truths
from mlapp.monitoring.writer import Writer
from mlapp.store.folder_storage import FolderStorage

RULES = ColumnPrivacy({}, "app")


class PlaceInUse(Place):
    """Another process deletes a person's rows while a writer has read the segments to merge."""

    def read_all(self, keys: Iterable[str]) -> list[bytes]:
        contents = super().read_all(keys)
        assert forget_person_rows(self, {"customer": "7"}, RULES) > 0
        return contents


def encode_customers(*customers: float) -> bytes:
    rows = len(customers)
    logged = LoggedRows(
        np.array(customers).reshape(-1, 1),
        [0.5] * rows,
        [b"request-%g" % customer for customer in customers],
        np.zeros(rows, dtype=np.int64),
        None,
        [],
        np.full(rows, 0.01),
        np.full(rows, 1_700_000_000.0),
        np.ones(rows, dtype=np.float32),
    )
    return encode_segment_table(make_log_table("1", logged, ["customer"], RULES))


@pytest.mark.parametrize("others", [(8.0,), ()], ids=["part of a segment", "a whole segment"])
def test_a_merge_does_not_bring_deleted_rows_back(tmp_path: Path, others: tuple[float, ...]) -> None:
    place = PlaceInUse(FolderStorage(tmp_path), "app")
    writer = Writer(place, "replica", lambda rows: None)
    writer.start()
    writer.add_segment("1", 1_700_000_000.0, encode_customers(7.0, *others), 1 + len(others))
    for at in range(100, 99 + MERGE):
        writer.add_segment("1", 1_700_000_000.0, encode_customers(float(at)), 1)
    writer.stop(60.0)
    assert read_customers(Place(FolderStorage(tmp_path), "app")) == [
        *others,
        *(float(at) for at in range(100, 99 + MERGE)),
    ]


FOLDER = "log/1/2023-11-14T22"
SEGMENTS = [Segment("replica", number, number) for number in (1, 2, 3)]


def read_customers(place: Place) -> list[float]:
    """The customers in the log, as a query sees them."""
    contents = place.read_all(list_database_log_keys(place))
    return sorted(
        customer for content in contents for customer in parquet.read_table(io.BytesIO(content))["customer"].to_pylist()
    )


class Killed(Exception):
    """The process is killed."""


class Steps(FolderStorage):
    """A process that does something, or is killed, before its reads and writes.

    Args:
        events: what happens before which step, counted from 1.
    """

    def __init__(self, root: Path, events: Mapping[int, Callable[[], object]]) -> None:
        super().__init__(root)
        self._events, self.steps = events, 0

    def take_step(self) -> None:
        self.steps += 1
        event = self._events.get(self.steps)
        if event is not None:
            event()

    def read_keys(self, keys: Iterable[str]) -> Any:
        self.take_step()
        return super().read_keys(keys)

    def list_names(self, prefix: str) -> Any:
        self.take_step()
        return super().list_names(prefix)

    def create_key(self, key: str, content: Any, *, from_reserve: bool = False) -> bool:
        self.take_step()
        return super().create_key(key, content, from_reserve=from_reserve)

    def delete_prefix(self, prefix: str) -> None:
        self.take_step()
        super().delete_prefix(prefix)


def kill() -> None:
    raise Killed


def store_customers(root: Path) -> Place:
    """Three segments, with the customer 7 in two of them, and a truth about each row."""
    place = Place(FolderStorage(root), "app")
    for segment, customers in zip(SEGMENTS, [(7.0,), (8.0,), (7.0, 9.0)], strict=True):
        place.storage.create_key(place.key(FOLDER, segment.name), encode_customers(*customers))
    truths = Truths(place, RULES)
    truths.write_truths(truths.check_truths([{"id": f"request-{at}", "truth": at} for at in (7, 8, 9)]))
    return place


def read_truths(place: Place) -> list[str]:
    contents = place.read_all(list_truth_keys(place))
    return sorted(
        truth for content in contents for truth in parquet.read_table(io.BytesIO(content))["truth"].to_pylist()
    )


def merge_customers(root: Path, events: Mapping[int, Callable[[], object]]) -> int:
    """Merge the segments; returns the number of steps."""
    storage = Steps(root, events)
    merger = SegmentMerger(Place(storage, "app"), "replica")
    for segment in SEGMENTS:
        merger.add_segment(FOLDER, segment, 1, 1)
    merger.start()
    merger.stop(60.0)
    return storage.steps


def list_kills(steps: int) -> list[tuple[int, int]]:
    return [(first, last) for first in range(1, steps + 2) for last in range(first, steps + 2)]


def test_a_person_s_rows_stay_deleted_wherever_a_merge_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_merger, "MERGE", len(SEGMENTS))
    store_customers(tmp_path / "whole")
    steps = merge_customers(tmp_path / "whole", {})
    assert steps >= 5, "it reads, writes, lists, and deletes each segment"
    for deleted_at, killed_at in list_kills(steps):
        root = tmp_path / f"{deleted_at}-{killed_at}"
        place = store_customers(root)

        def forget(place: Place = place) -> None:
            assert forget_person_rows(place, {"customer": "7"}, RULES) > 0

        def forget_and_die(forget: Callable[[], None] = forget) -> None:
            forget()
            kill()

        events = {deleted_at: forget, killed_at: kill} if deleted_at < killed_at else {deleted_at: forget_and_die}
        merge_customers(root, events)
        if deleted_at > steps:
            forget()
        assert (read_customers(place), read_truths(place)) == ([8.0, 9.0], ["8", "9"]), (deleted_at, killed_at)
        assert forget_person_rows(place, {"customer": "9"}, RULES) > 0
        assert (read_customers(place), read_truths(place)) == ([8.0], ["8"]), (deleted_at, killed_at)


@pytest.mark.parametrize("is_merged", [False, True], ids=["segments", "beside a merged segment"])
def test_a_deletion_that_is_killed_is_completed_by_the_next_one(
    is_merged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_merger, "MERGE", len(SEGMENTS))
    for step in count(1):
        root = tmp_path / str(step)
        place = store_customers(root)
        if is_merged:
            merge_customers(root, {4: kill})
            assert len(place.names(FOLDER)) == len(SEGMENTS) + 1
        with suppress(Killed):
            forget_person_rows(Place(Steps(root, {step: kill}), "app"), {"customer": "7"}, RULES)
            break
        forget_person_rows(place, {"customer": "9"}, RULES)
        forget_person_rows(place, {"customer": "7"}, RULES)
        assert (read_customers(place), read_truths(place)) == ([8.0], ["8"]), step
    assert step > 10


def test_a_segment_that_its_writer_writes_again_shows_no_deleted_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_merger, "MERGE", len(SEGMENTS))
    place = store_customers(tmp_path)
    assert forget_person_rows(place, {"customer": "7"}, RULES) > 0
    place.storage.create_key(place.key(FOLDER, SEGMENTS[0].name), encode_customers(7.0))
    assert read_customers(place) == [8.0, 9.0]
    place.storage.create_key(place.key(FOLDER, SEGMENTS[2].name), encode_customers(7.0, 9.0))
    merge_customers(tmp_path, {})
    assert read_customers(place) == [8.0, 9.0]
