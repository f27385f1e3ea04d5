"""Cached reads: only on request, and never stale for other parameters or code."""

import os
import time
from datetime import date

import pandas as pd
import pytest

from mlapp.data.cache import cached
from mlapp.data.source import declared, reader
from mlapp.errors import DataError


@pytest.fixture
def calls():
    return []


@pytest.fixture
def read(tmp_path, calls):
    @cached(hours=1, folder=tmp_path)
    def orders(since: date, limit: int = 5) -> pd.DataFrame:
        """From ${SHOP_URL}."""
        calls.append((since, limit))
        return pd.DataFrame({"n": pd.array([limit, None], dtype="Int64"), "since": [str(since)] * 2})

    return orders


def test_the_same_read_is_made_once(read, calls):
    first, second = read(date(2026, 1, 1)), read(since=date(2026, 1, 1), limit=5)
    pd.testing.assert_frame_equal(first, second)
    assert calls == [(date(2026, 1, 1), 5)]


def test_another_parameter_or_database_is_another_read(read, calls, monkeypatch):
    read(date(2026, 1, 1))
    read(date(2026, 1, 2))
    read(date(2026, 1, 1), limit=6)
    monkeypatch.setenv("SHOP_URL", "postgresql://another")
    read(date(2026, 1, 1))
    assert len(calls) == 4


def test_what_is_old_or_was_changed_is_read_again(read, calls, tmp_path):
    read(date(2026, 1, 1))
    (file,) = tmp_path.glob("*.parquet")
    os.utime(file, (time.time() - 7200, time.time() - 7200))
    read(date(2026, 1, 1))
    (file,) = tmp_path.glob("*.parquet")
    pd.DataFrame({"n": [9]}).to_parquet(file)
    assert read(date(2026, 1, 1))["n"][0] == 5
    (file,) = tmp_path.glob("*.parquet")
    file.write_bytes(b"cut off")
    read(date(2026, 1, 1))
    assert len(calls) == 4


def test_the_reader_of_a_source_may_be_cached(tmp_path, calls):
    def source(query):
        def rows(values):
            calls.append(query)
            return pd.DataFrame({"a": [1]})

        return cached(folder=tmp_path)(reader("example", query, rows, declared({"limit": 1})))

    for query in ("SELECT 1", "SELECT 2", "SELECT 1"):
        source(query)(limit=2)
    assert calls == ["SELECT 1", "SELECT 2"]


def test_only_a_table_can_be_cached(tmp_path):
    with pytest.raises(DataError, match="orders returned a list, which cannot be cached"):
        cached(folder=tmp_path)(orders)()


def orders() -> list[int]:
    return [1]
