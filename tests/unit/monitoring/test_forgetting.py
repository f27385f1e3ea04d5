"""A person's rows are deleted while a replica merges its segments."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.database import list_database_log_keys
from mlapp.monitoring.forgetting import forget_person_rows
from mlapp.monitoring.log_rows import make_log_table
from mlapp.monitoring.place import Place
from mlapp.monitoring.segment_merger import MERGE
from mlapp.monitoring.segments import encode_segment_table
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
    contents = [place.storage.read_key(key) for key in list_database_log_keys(place)]
    customers = [
        customer
        for content in contents
        if content is not None
        for customer in parquet.read_table(io.BytesIO(content))["customer"].to_pylist()
    ]
    assert sorted(customers) == [*others, *(float(at) for at in range(100, 99 + MERGE))]
