"""Comparing current data with the training data."""

import pandas as pd

from mlapp.schema import infer_schema
from mlapp.schema.compare import Difference, compare_schemas

THEN = pd.DataFrame({"age": [20, 40], "plan": pd.Categorical(["a", "b"]), "city": ["x", "y"], "score": [0.5, 1.5]})


def differences(now: pd.DataFrame) -> set[tuple[str, str, bool]]:
    return {(each.column, each.what, each.breaks) for each in compare_schemas(infer_schema(THEN), infer_schema(now))}


def test_the_same_data_has_no_differences():
    assert compare_schemas(infer_schema(THEN), infer_schema(THEN)) == []
    assert compare_schemas(infer_schema(THEN), infer_schema(THEN.assign(score=[1, 1]))) == []


def test_what_the_model_would_refuse_breaks():
    now = pd.DataFrame({"age": ["old", "new"], "plan": pd.Categorical(["a", "c"]), "score": [None, 1.0], "new": [1, 2]})
    assert differences(now) == {
        ("age", "was integer, is string", True),
        ("plan", "has new values: c", True),
        ("city", "is missing", True),
        ("score", "has missing values now", True),
        ("new", "is new", True),
    }


def test_what_is_only_unusual_is_worth_a_look():
    now = THEN.assign(age=[10, 50], city=["x", "z"])
    assert differences(now) == {
        ("age", "goes down to 10, was 20 at least", False),
        ("age", "goes up to 50, was 40 at most", False),
        ("city", "has new values: z", False),
    }
    assert isinstance(compare_schemas(infer_schema(THEN), infer_schema(now))[0], Difference)
