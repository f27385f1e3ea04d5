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
    seen = {column.name: column for column in profile_table(table)}
    assert (seen["age"].missing, seen["age"].distinct, seen["age"].minimum, seen["age"].maximum) == (1, 9, 0, 8)
    for name in ("age", "price", "at"):
        assert len(seen[name].counts) == len(seen[name].distribution) == BINS
        assert sum(seen[name].counts) == 10 - seen[name].missing
    assert seen["plan"].distribution == "free ×8, pro ×2"
    assert (seen["name"].minimum, seen["name"].distribution) == ("n0", "")
    assert seen["paid"].top == ((True, 9), (False, 1))
    assert (seen["tags"].distinct, seen["tags"].distribution) == (None, "")
    assert (seen["none"].missing, seen["none"].distinct) == (10, 0)
    assert seen["same"].counts == ()
