"""Truths and business keys of clients: values of each type, and names without end."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from mlapp.baseline import Baseline
from mlapp.errors import InputError, TruthError
from mlapp.monitoring.business_keys import MOST_COLUMNS, MOST_KEYS
from mlapp.monitoring.column_privacy import ColumnPrivacy
from mlapp.monitoring.place import Place
from mlapp.monitoring.segments import encode_segment_table, make_segment_table, merge_segment_tables
from mlapp.monitoring.truth import Truths
from mlapp.serving.decoding.json_body import check_business_keys
from mlapp.store.folder_storage import FolderStorage

pytest.importorskip("pyarrow", reason="needs mlapp-kit[monitor]")


@pytest.mark.parametrize("target", ["integer", "number", "boolean", "string"])
@pytest.mark.parametrize("truth", [10**400, -(10**400)])
def test_an_integer_beyond_every_float_is_refused(tmp_path, target: str, truth: int) -> None:
    place = Place(FolderStorage(tmp_path), "app")
    with pytest.raises(TruthError, match="truth is"):
        Truths(place, ColumnPrivacy({}, "app"), Baseline(target=target)).check_truths({"id": "a", "truth": truth})


@pytest.mark.parametrize(
    "identity", ["a" * 129, "a" * 2**20, "a\nb", "a b", "a\x00", "\ud800", "\u00e9", "#1", "a#1_0", "a#\u0663", "a#-1"]
)
def test_an_id_that_no_answer_can_have_is_refused(tmp_path, identity: str) -> None:
    truths = Truths(Place(FolderStorage(tmp_path), "app"), ColumnPrivacy({}, "app"))
    with pytest.raises(TruthError, match="neither the form REQUEST nor REQUEST#ROW"):
        truths.check_truths({"id": identity, "truth": 1})


@pytest.mark.parametrize("identity", ["a" * 128, "00-4bf9.a:/+=@-_#12", 4711])
def test_an_id_of_an_answer_is_accepted(tmp_path, identity: str | int) -> None:
    truths = Truths(Place(FolderStorage(tmp_path), "app"), ColumnPrivacy({}, "app"))
    assert truths.check_truths({"id": identity, "truth": 1})


def test_more_keys_than_a_row_may_have_are_refused(tmp_path) -> None:
    truths = Truths(Place(FolderStorage(tmp_path), "app"), ColumnPrivacy({}, "app"))
    names = [f"k{at}" for at in range(MOST_KEYS + 1)]
    with pytest.raises(TruthError, match="keys is not an object of at most 16"):
        truths.check_truths({"keys": dict.fromkeys(names, 1), "truth": 1})
    with pytest.raises(InputError, match="keys is neither an object of at most 16"):
        check_business_keys(dict.fromkeys(names, 1), 1)
    assert truths.check_truths({"keys": dict.fromkeys(names[1:], 1), "truth": 1})


def make_segment(second: int) -> Any:
    """Rows of clients that invent a name of a key for each row."""
    keys = [{"loan": 1, f"k{second}-{row}": 1} for row in range(100)]
    texts, numbers = ["x"] * len(keys), np.zeros(len(keys))
    own = dict.fromkeys(("id", "request", "version"), texts) | dict.fromkeys(
        ("row", "time", "latency", "weight"), numbers
    )
    return make_segment_table({"a": numbers}, texts, own, keys, ColumnPrivacy({}, "app"))


def test_invented_names_of_keys_make_no_more_columns() -> None:
    from pyarrow import parquet

    segments = [make_segment(second) for second in range(3)]
    merged = parquet.ParquetFile(io.BytesIO(merge_segment_tables(map(encode_segment_table, segments)))).read()
    for table in (*segments, merged):
        names = [name for name in table.column_names if name.startswith("key.")]
        assert len(names) == MOST_COLUMNS
        assert names[0] == "key.loan"
    assert merged.num_rows == 300
