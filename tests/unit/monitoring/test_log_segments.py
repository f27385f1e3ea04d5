"""Segments of rows of numbers, which are written without pyarrow, as readers of Parquet see them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as parquet
import pytest

from mlapp.monitoring.answered_rows import LoggedRows
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.log_rows import make_log_table
from mlapp.monitoring.number_segments import encode_number_rows
from mlapp.monitoring.plain_parquet import encode_texts
from mlapp.monitoring.segments import encode_segment_table

ROWS = 300
NAMES = ["row", "width", "höhe"]


def log_rows(features: Any, predictions: list[Any] | None = None, ids: list[bytes] | None = None) -> LoggedRows:
    return LoggedRows(
        features,
        predictions if predictions is not None else [at / 2 for at in range(ROWS)],
        ids or [b"request-%04d" % at for at in range(ROWS)],
        np.zeros(ROWS, dtype=np.int64),
        None,
        [],
        np.full(ROWS, 0.25),
        np.arange(ROWS) + 1_700_000_000.0,
        np.full(ROWS, 4.0, dtype=np.float32),
    )


def cells(missing: bool = False) -> np.ndarray:
    numbers = np.random.default_rng(0).normal(size=(ROWS, len(NAMES)))
    if missing:
        numbers[::3, 1] = np.nan
    return numbers


@pytest.mark.parametrize(
    "logged",
    [
        log_rows(cells()),
        log_rows(cells().astype(np.float32), list(range(ROWS))),
        log_rows(pd.DataFrame(cells(missing=True), columns=NAMES)),
        log_rows(cells(), ids=[b"r" * (1 + at % 5) for at in range(ROWS)]),
    ],
    ids=["rows", "float32", "missing", "ids of several lengths"],
)
def test_a_segment_of_numbers_reads_like_one_of_pyarrow(logged: LoggedRows, tmp_path: Path) -> None:
    rules = ColumnPrivacy({}, "app")
    pieces = encode_number_rows("7", logged, NAMES, rules)
    assert pieces is not None
    content = b"".join(pieces)
    expected = parquet.read_table(
        io.BytesIO(encode_segment_table(make_log_table("7", logged, NAMES, rules), is_quick=True))
    )
    segment = parquet.read_table(io.BytesIO(content))
    assert segment.equals(expected)
    assert segment.schema.equals(expected.schema, check_metadata=True)
    (tmp_path / "segment.parquet").write_bytes(content)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "segment.parquet"), expected.to_pandas())
    seen = duckdb.execute(
        f"SELECT count(*), count(width), min(id), typeof(min(time)) FROM '{tmp_path}/segment.parquet'"
    )
    known = ROWS - expected["width"].null_count
    assert seen.fetchone() == (ROWS, known, min(logged.requests).decode(), "TIMESTAMP WITH TIME ZONE")


@pytest.mark.parametrize(
    ("logged", "columns"),
    [
        (log_rows(pd.DataFrame({"city": ["Oslo"] * ROWS})), {}),
        (log_rows(cells(), ["yes"] * ROWS), {}),
        (log_rows(cells(), [1, None] * (ROWS // 2)), {}),
        (log_rows(cells(), [2**70] * ROWS), {}),
        (log_rows(cells()), {"width": "drop"}),
        (log_rows(cells(), ids=[b"r\xff"] * ROWS), {}),
    ],
    ids=["texts", "classes", "no prediction", "huge", "redacted", "latin-1"],
)
def test_other_rows_are_left_to_pyarrow(logged: LoggedRows, columns: dict[str, str]) -> None:
    assert encode_number_rows("7", logged, NAMES, ColumnPrivacy(columns, "app")) is None


def test_texts_whose_joined_length_is_that_of_equal_texts_are_distinguished() -> None:
    for texts in ([b"aa", b"b", b"ccc"], [b"ab", b"\x02\x00", b"cd"], [b""], [b"x" * 300] * 3):
        data, decoded_texts, at = encode_texts(texts), [], 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "little")
            decoded_texts.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        assert decoded_texts == texts
