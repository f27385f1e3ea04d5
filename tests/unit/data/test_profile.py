"""The profile of a table."""

from decimal import Decimal

import pandas as pd
import pyarrow as pa

from mlapp.data.profile import BINS, profile_table


def test_each_kind_of_column_is_summarised():
    table = pd.DataFrame({
        "age": [*range(9), None],
        "price": pd.array([Decimal(n) for n in range(10)], dtype=pd.ArrowDtype(pa.decimal128(5, 2))),
        "at": pd.date_range("2026-01-01", periods=10),
        "plan": pd.Categorical(["free"] * 8 + ["pro"] * 2),
        "name": [f"n{n}" for n in range(10)],
        "paid": [True] * 9 + [False],
        "tags": [["a"]] * 10,
        "none": [None] * 10,
        "same": [1] * 10,
    })  # fmt: skip
    profiles = {column.name: column for column in profile_table(table)}
    assert (profiles["age"].missing, profiles["age"].distinct, profiles["age"].minimum, profiles["age"].maximum) == (
        1,
        9,
        0,
        8,
    )
    for name in ("age", "price", "at"):
        assert len(profiles[name].counts) == len(profiles[name].distribution) == BINS
        assert sum(profiles[name].counts) == 10 - profiles[name].missing
    assert profiles["plan"].distribution == "free ×8, pro ×2"
    assert (profiles["name"].minimum, profiles["name"].distribution) == ("n0", "")
    assert profiles["paid"].top == ((True, 9), (False, 1))
    assert (profiles["tags"].distinct, profiles["tags"].distribution) == (None, "")
    assert (profiles["none"].missing, profiles["none"].distinct) == (10, 0)
    assert profiles["same"].counts == ()
