"""What changes a table's fingerprint, and what does not."""

import datetime
import subprocess
import sys
import time
import tracemalloc
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from mlapp.data import fingerprint as module
from mlapp.data.fingerprint import fingerprint_table


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": [31, 42, 53],
            "score": [0.5, float("nan"), 2.5],
            "name": ["Ada", None, "Grace"],
            "plan": pd.Categorical(["free", "pro", "free"]),
            "visits": pd.array([1, None, 3], dtype="Int64"),
            "since": pd.to_datetime(["2026-01-01", "2026-01-02", None]).tz_localize("Europe/Paris"),
            "paid": [Decimal("1.10"), None, Decimal("2.20")],
            "tags": [["a", "b"], [], None],
            "extra": [{"a": 1}, {}, {"b": [1, 2]}],
            "day": [datetime.date(2026, 1, 1), None, datetime.date(2026, 1, 3)],
        }
    )


def test_same_content_has_the_same_fingerprint():
    assert fingerprint_table(table()) == fingerprint_table(table())


def test_copies_slices_and_layouts_of_the_same_rows_agree():
    whole = table()
    assert fingerprint_table(whole.copy()) == fingerprint_table(whole)
    assert fingerprint_table(pd.concat([whole.head(1), whole.iloc[1:]])) == fingerprint_table(whole)
    numbers = np.arange(12.0).reshape(4, 3)
    by_row, by_column = (
        pd.DataFrame(numbers, columns=list("abc")),
        pd.DataFrame(dict(zip("abc", numbers.T.copy(), strict=True))),
    )
    assert fingerprint_table(by_row) == fingerprint_table(by_column)


def test_the_index_does_not_count():
    assert fingerprint_table(table().set_index(pd.Index([7, 8, 9]))) == fingerprint_table(table())


def test_texts_agree_in_every_storage_and_without_pyarrow(monkeypatch):
    pytest.importorskip("pyarrow")
    texts = ["", "Ada", None, "Zoë", "a\0b"]
    tables = [
        pd.DataFrame({"t": pd.array(["cut", *texts], dtype=pd.StringDtype(storage))}).iloc[1:]
        for storage in ("python", "pyarrow")
    ]
    fingerprints = {fingerprint_table(each) for each in tables}
    monkeypatch.setattr(module, "_encode_fingerprint_arrow_texts", refuse)
    assert fingerprints | {fingerprint_table(tables[0])} == fingerprints
    assert len(fingerprints) == 1


def refuse(column: pd.Series) -> None:
    raise ImportError("pyarrow")


def test_half_a_surrogate_pair_is_hashed():
    broken = pd.DataFrame({"t": pd.array(["a\ud800"], dtype=pd.StringDtype("python"))})
    assert fingerprint_table(broken) == fingerprint_table(broken)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("age", 32),
        ("score", 0.25),
        ("name", "Eda"),
        ("name", None),
        ("plan", "pro"),
        ("visits", None),
        ("visits", 2),
        ("since", pd.Timestamp("2026-01-01 00:00:01", tz="Europe/Paris")),
        ("paid", Decimal("1.1")),
        ("tags", ["ab"]),
        ("extra", {"a": 2}),
        ("day", datetime.date(2026, 1, 2)),
    ],
)
def test_one_value_changes_it(column, value):
    changed = table()
    changed.at[0, column] = value
    assert fingerprint_table(changed) != fingerprint_table(table())


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole.rename(columns={"age": "years"}),
        lambda whole: whole[[*whole.columns[1:], whole.columns[0]]],
        lambda whole: whole.iloc[::-1],
        lambda whole: whole.head(2),
        lambda whole: whole.astype({"age": "float64"}),
        lambda whole: whole.astype({"age": "int32"}),
        lambda whole: whole.astype({"plan": "object"}),
        lambda whole: whole.assign(plan=whole["plan"].cat.as_ordered()),
        lambda whole: whole.assign(since=whole["since"].dt.tz_convert("UTC")),
        lambda whole: whole.assign(new=1),
    ],
    ids=["name", "column order", "row order", "rows", "type", "width", "category", "ordered", "zone", "column"],
)
def test_shape_names_and_types_change_it(change):
    assert fingerprint_table(change(table())) != fingerprint_table(table())


def test_text_that_moves_between_rows_changes_it():
    assert fingerprint_table(pd.DataFrame({"t": ["ab", "c"]})) != fingerprint_table(pd.DataFrame({"t": ["a", "bc"]}))


def test_values_under_a_mask_do_not_count():
    first = pd.arrays.IntegerArray(np.array([1, 5]), np.array([False, True]))
    second = pd.arrays.IntegerArray(np.array([1, 9]), np.array([False, True]))
    assert fingerprint_table(pd.DataFrame({"n": first})) == fingerprint_table(pd.DataFrame({"n": second}))


def test_arrow_types_interval_and_period_are_hashed():
    arrow = pytest.importorskip("pyarrow")
    odd = pd.DataFrame(
        {
            "arrow": pd.Series([1, None], dtype=pd.ArrowDtype(arrow.int64())),
            "decimal": pd.Series([Decimal("1.0"), None], dtype=pd.ArrowDtype(arrow.decimal128(10, 2))),
            "interval": pd.arrays.IntervalArray.from_tuples([(0, 1), (1, 2)]),
            "period": pd.period_range("2026-01", periods=2, freq="M"),
        }
    )
    assert fingerprint_table(odd) == fingerprint_table(odd.copy())
    assert fingerprint_table(odd) != fingerprint_table(odd.iloc[::-1])


def test_two_columns_of_one_name_and_no_columns():
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert fingerprint_table(twice) != fingerprint_table(pd.DataFrame([[1, 3]], columns=["a", "a"]))
    assert fingerprint_table(pd.DataFrame(index=range(3))) != fingerprint_table(pd.DataFrame(index=range(2)))


def test_another_process_gets_the_same_one():
    code = (
        "import pandas as pd; from mlapp.data.fingerprint import fingerprint_table;"
        "print(fingerprint_table(pd.DataFrame({'a': [1, 2], 'b': [{'x', 'y'}, 'z']})))"
    )
    fingerprints = {
        subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    }
    assert len(fingerprints) == 1


def test_a_million_rows_take_about_a_second_of_cpu_and_no_copy():
    big = pd.DataFrame(np.random.default_rng(0).random((1_000_000, 20)), columns=[f"c{n}" for n in range(20)])
    times = []
    for _ in range(3):  # the best of three: others use the machine too
        start = time.process_time()
        fingerprint_table(big)
        times.append(time.process_time() - start)
        if times[-1] < 1:
            break
    assert min(times) < 1
    part = big.head(300_000)
    tracemalloc.start()
    fingerprint_table(part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24_000_000  # a column of 2.4 MB for each of up to six threads; the table has 48 MB
