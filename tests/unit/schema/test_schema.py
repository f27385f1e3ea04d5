"""The schema: inference from training data, and validation."""

from __future__ import annotations

import datetime

import msgspec
import numpy as np
import pandas as pd
import pytest

from mlapp.errors import InputError
from mlapp.schema import Schema, infer_schema
from mlapp.schema.request_table import make_request_table

TRAINED = pd.DataFrame(
    {
        "age": [31, 42, 27],
        "income": [1000.5, float("nan"), 900.0],
        "score": [0.1, 0.2, 0.3],
        "vip": [True, False, True],
        "city": ["Bern", "Zürich", "Bern"],
        "since": pd.to_datetime(["2024-01-01", "2025-06-01", "2023-03-03"]),
        "plan": pd.Categorical(["free", "pro", "free"]),
    }
)
GOOD = {
    "age": 50,
    "income": 10.0,
    "score": 1,
    "vip": True,
    "city": "Basel",
    "since": "2026-01-01T00:00:00",
    "plan": "pro",
}


@pytest.fixture(scope="module")
def schema() -> Schema:
    return infer_schema(TRAINED)


def test_a_schema_knows_names_order_types_ranges_and_categories(schema: Schema) -> None:
    fields = {field.name: field for field in schema.fields}
    assert [(field.name, field.type) for field in schema.fields] == [
        ("age", "integer"),
        ("income", "number"),
        ("score", "number"),
        ("vip", "boolean"),
        ("city", "string"),
        ("since", "datetime"),
        ("plan", "category"),
    ]
    assert (fields["age"].minimum, fields["age"].maximum) == (27, 42)
    assert fields["income"].nullable
    assert not fields["score"].nullable
    assert fields["city"].categories == ["Bern", "Zürich"]
    assert fields["plan"].categories == ["free", "pro"]
    assert fields["age"].example == 31


def test_a_schema_survives_json(schema: Schema) -> None:
    assert msgspec.json.decode(msgspec.json.encode(schema), type=Schema) == schema


def test_its_own_example_is_accepted(schema: Schema) -> None:
    assert len(make_request_table(schema.example_inputs(), schema)) == 1


@pytest.mark.parametrize(
    "inputs",
    [
        [GOOD],
        GOOD,
        [dict(reversed(GOOD.items()))],
        [list(GOOD.values())],
        {name: [value] for name, value in GOOD.items()},
        pd.DataFrame([GOOD]),
    ],
    ids=["records", "one record", "any order", "rows", "columns", "a DataFrame"],
)
def test_every_form_gives_the_same_table_of_the_training_types(inputs: object, schema: Schema) -> None:
    table = make_request_table(inputs, schema)
    assert list(table.columns) == list(TRAINED.columns)
    assert table.dtypes.to_dict() == TRAINED.dtypes.to_dict()
    assert table.iloc[0]["since"] == pd.Timestamp("2026-01-01")


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"age": "old"}, "age", "column 'age', row 0: 'old' is not a whole number"),
        ({"age": 3.5}, "age", "3.5 is not a whole number"),
        ({"age": True}, "age", "True is not a whole number"),
        ({"age": None}, "age", "the value is missing; the training data had no missing values"),
        ({"score": float("nan")}, "score", "the value is missing"),
        ({"score": float("inf")}, "score", "the value is infinite; the training data had no infinite values"),
        ({"score": "0.1"}, "score", "'0.1' is not a number"),
        ({"vip": 1}, "vip", "1 is not true or false"),
        ({"city": 7}, "city", "7 is not a string"),
        ({"since": "soon"}, "since", "'soon' is not a date or time"),
        ({"since": 12}, "since", "12 is not a date or time"),
        ({"plan": "gold"}, "plan", "'gold' is not one of free, pro"),
        ({"agee": 1}, "agee", "unknown column 'agee'. Did you mean 'age'?"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], field: str, says: str, schema: Schema) -> None:
    with pytest.raises(InputError) as error:
        make_request_table([{**GOOD, **change}], schema)
    (problem,) = error.value.problems
    assert (problem.field, problem.row) == (field, 0)
    assert says in problem.detail


def test_a_missing_column_is_named(schema: Schema) -> None:
    with pytest.raises(InputError, match="row 1 lacks 'city'"):
        make_request_table([GOOD, {name: value for name, value in GOOD.items() if name != "city"}], schema)


def test_a_missing_value_is_accepted_where_training_had_some(schema: Schema) -> None:
    assert make_request_table([{**GOOD, "income": None}], schema)["income"].isna().all()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (np.array([300]), "300"),
        (np.array([-1]), "-1"),
        (np.array([2**63], dtype="uint64"), "9223372036854775808"),
        (np.array([1e300]), "1e+300"),
    ],
)
def test_a_typed_column_is_not_cut_to_the_size_of_the_models_integers(given: np.ndarray, shown: str) -> None:
    schema = infer_schema(pd.DataFrame({"a": np.array([1, 2], dtype="uint8")}))
    for dtype in ("int64", "uint64", "float16", "float64"):
        assert make_request_table(pd.DataFrame({"a": np.array([255], dtype)}), schema)["a"].tolist() == [255]
    with pytest.raises(InputError) as error:
        make_request_table(pd.DataFrame({"a": given}), schema)
    assert error.value.problems[0].detail == f"column 'a', row 0: {shown} is out of range for uint8"


def test_a_number_that_is_whole_is_accepted_as_a_whole_number(schema: Schema) -> None:
    assert make_request_table([{**GOOD, "age": 3.0}], schema)["age"].tolist() == [3]


@pytest.mark.parametrize(
    "inputs", [[], {}, "text", 3, None, [1, 2], [[1]], [GOOD, [1]], {"age": []}, {"age": [1], "score": [1, 2]}]
)
def test_what_is_no_table_is_refused(inputs: object, schema: Schema) -> None:
    with pytest.raises(InputError):
        make_request_table(inputs, schema)


def test_an_array_has_a_shape_in_place_of_columns() -> None:
    schema = infer_schema(np.zeros((5, 8, 8)))
    assert (schema.kind, schema.shape, schema.dtype) == ("array", [8, 8], "float64")


def test_dates_and_zones_are_preserved() -> None:
    trained = pd.DataFrame(
        {
            "zoned": pd.to_datetime(["2024-01-01T00:00Z", "2024-01-02T00:00Z"]),
            "day": [datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)],
        }
    )
    schema = infer_schema(trained)
    table = make_request_table([{"zoned": "2026-01-01T02:00:00+02:00", "day": "2026-05-05"}], schema)
    assert table["zoned"].iloc[0] == pd.Timestamp("2026-01-01T00:00Z")
    times = ["2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00-01:00", "2026-01-01"]
    table = make_request_table([{"zoned": time, "day": "2026-05-05"} for time in times], schema)
    assert [moment.hour for moment in table["zoned"]] == [0, 1, 0]
    assert table["day"].iloc[0] == datetime.date(2026, 5, 5)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_table_of_floats_is_taken_in_one_piece_in_any_order_and_from_integers(dtype: str) -> None:
    schema = infer_schema(pd.DataFrame({"a": [0.5, 1], "b": [2.0, 3]}, dtype=dtype))
    table = make_request_table(pd.DataFrame({"b": [1, 2], "a": [0.5, -1e300 if dtype == "float64" else 3]}), schema)
    assert list(table.columns) == ["a", "b"]
    assert [str(kind) for kind in table.dtypes] == [dtype, dtype]
    assert table["b"].tolist() == [1, 2]
    with pytest.raises(InputError, match="column 'b', row 1: the value is infinite"):
        make_request_table(pd.DataFrame({"a": [0.5, 1], "b": [1.0, float("inf")]}), schema)
