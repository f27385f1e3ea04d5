"""JSON preserves every dtype of training."""

from __future__ import annotations

import datetime
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlapp import App, frameworks
from mlapp.errors import InputError
from mlapp.prediction import Predictor
from mlapp.schema import ModelSchema, Schema, infer_schema
from mlapp.schema.durations import format_duration, parse_duration
from mlapp.schema.json_values import to_json_value
from mlapp.schema.request_table import make_request_table
from mlapp.serving.decoding.codec import Codec

ROWS = 8
DAYS = pd.date_range("2024-01-01", periods=ROWS)
HOURS = pd.to_timedelta(range(ROWS), "h")


def arrow(kind: pa.DataType, values: list[Any]) -> Any:
    return pd.array(values * (ROWS // 2), pd.ArrowDtype(kind))


def objects(*values: Any) -> pd.Series:
    return pd.Series(list(values) * (ROWS // len(values)), dtype=object)


NUMPY = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
NULLABLE = ["Int8", "Int64", "UInt8", "UInt64", "Float32", "Float64"]
ARROW_NUMBERS = [pa.int8(), pa.int64(), pa.uint32(), pa.float16(), pa.float32(), pa.float64()]
COLUMNS: dict[str, Any] = {
    "bool": [True, False] * 4,
    "boolean": pd.array([True, None] * 4, "boolean"),
    "bool_arrow": arrow(pa.bool_(), [True, None]),
    "bool_objects": objects(True, None),
    **{dtype: np.arange(ROWS).astype(dtype) for dtype in NUMPY},
    **{dtype: pd.array([1, None] * 4, dtype) for dtype in NULLABLE},
    **{f"arrow_{kind}": arrow(kind, [1, None]) for kind in ARROW_NUMBERS},
    "beyond_floats": pd.array([2**60 + 1, None] * 4, "Int64"),
    "largest": np.array([2**64 - 1] * ROWS, "uint64"),
    "largest_arrow": arrow(pa.uint64(), [2**63 + 1, None]),
    "sparse_floats": pd.arrays.SparseArray([0.0, 1.5] * 4, fill_value=0.0),
    "sparse_with_nan": pd.arrays.SparseArray([np.nan, 1.5] * 4),
    "sparse_integers": pd.arrays.SparseArray([3, 1] * 4, fill_value=3),
    "sparse_truths": pd.arrays.SparseArray([True, False] * 4),
    "nan": [1.5, np.nan] * 4,
    "nan_in_all": [np.nan] * ROWS,
    "integers_of_python": objects(1, None),
    "floats_of_python": objects(1.5, float("nan")),
    "str": ["a", None] * 4,
    "texts_or_none": objects("a", None),
    "texts_or_nan": objects("a", np.nan),
    "texts_or_NA": objects("a", pd.NA),
    "string": pd.array(["a", None] * 4, "string"),
    "string_arrow": arrow(pa.string(), ["a", None]),
    "large_string_arrow": arrow(pa.large_string(), ["a", None]),
    "times": DAYS,
    "times_in_seconds": DAYS.astype("datetime64[s]"),
    "times_or_none": pd.Series([DAYS[0], pd.NaT] * 4),
    "times_in_utc": DAYS.tz_localize("UTC"),
    "times_in_berlin": DAYS.tz_localize("Europe/Berlin"),
    "times_arrow": pd.array(DAYS, pd.ArrowDtype(pa.timestamp("us"))),
    "times_in_utc_arrow": pd.array(DAYS.tz_localize("UTC"), pd.ArrowDtype(pa.timestamp("us", "UTC"))),
    "dates_arrow": arrow(pa.date32(), [datetime.date(2024, 1, 1), None]),
    "dates": objects(datetime.date(2024, 1, 1), None),
    "durations": HOURS,
    "durations_in_seconds": HOURS.astype("timedelta64[s]"),
    "durations_or_none": pd.Series([pd.Timedelta(-1, "ns"), pd.NaT] * 4),
    "durations_arrow": pd.array([pd.Timedelta(1, "ms"), None] * 4, pd.ArrowDtype(pa.duration("ms"))),
    "clocks": objects(datetime.time(12, 30), datetime.time(1, 2, 3, 4)),
    "clocks_or_none": objects(datetime.time(12, 30), None),
    "clocks_arrow": arrow(pa.time64("us"), [datetime.time(1, 2, 3, 4), None]),
    "clocks_arrow_in_seconds": arrow(pa.time32("s"), [datetime.time(1, 2, 3), None]),
    "months": pd.period_range("2024-01", periods=ROWS, freq="M"),
    "quarters_or_none": pd.Series(pd.array([pd.Period("2024Q3"), None] * 4, "period[Q-DEC]")),
    "weeks": pd.period_range("2024-01", periods=ROWS, freq="W"),
    "bytes": objects(b"a", b"\xff\x00"),
    "bytes_or_nan": objects(b"", np.nan),
    "bytes_arrow": arrow(pa.binary(), [b"a\xff", None]),
    "uuids": objects(uuid.UUID(int=1), uuid.UUID(int=2**127)),
    "uuids_or_none": objects(uuid.UUID(int=1), None),
    "category": pd.Categorical(["a", "b"] * 4),
    "category_ordered": pd.Categorical(["S", "M"] * 4, ["S", "M", "L"], ordered=True),
    "category_of_integers": pd.Categorical([1, 2] * 4),
    "category_of_small_integers": pd.Categorical(np.array([1, 2] * 4, "int8")),
    "category_or_none": pd.Categorical([1.5, None] * 4),
    "category_of_booleans": pd.Categorical([True, False] * 4),
    "category_of_times": pd.Categorical(DAYS),
    "category_of_times_in_berlin": pd.Categorical(DAYS.tz_localize("Europe/Berlin")),
    "category_of_intervals": pd.cut(pd.Series(np.arange(ROWS) / 3), 3),
    "category_of_whole_intervals": pd.cut(pd.Series(np.arange(ROWS)), [-1, 3, 9], right=False),
    "category_of_timedeltas": pd.Categorical(HOURS),
    "category_of_periods": pd.Categorical(pd.period_range("2024-01", periods=ROWS, freq="M")),
    "category_of_dates": pd.Categorical([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)] * 4),
    "category_of_clocks": pd.Categorical([datetime.time(1), datetime.time(2)] * 4),
    "category_of_bytes": pd.Categorical([b"a", b"\xff"] * 4),
    "category_of_uuids": pd.Categorical([uuid.UUID(int=1), uuid.UUID(int=2)] * 4),
    "category_string": pd.Categorical(pd.array(["a", "b"] * 4, "string")),
    "category_of_objects": pd.Categorical(pd.Index(["a", "b"] * 4, dtype=object)),
    "category_of_mixed": pd.Categorical(pd.Index(["a", 1] * 4, dtype=object)),
    "sparse": pd.arrays.SparseArray([0.0, 1.0] * 4),
    "lists": objects([1, 2], [3]),
    "dicts": objects({"a": 1}),
    "mixed": objects("a", 1),
}


def schema_of(column: Any) -> tuple[pd.DataFrame, Schema]:
    table = pd.DataFrame({"x": column})
    return table, msgspec.json.decode(msgspec.json.encode(infer_schema(table)), type=Schema)


def decoded(body: bytes, schema: Schema) -> pd.DataFrame:
    predictor = Predictor(
        App("dtypes"),
        None,
        frameworks.get_framework("sklearn"),
        ModelSchema(features=schema, predictions=Schema(kind="any")),
    )
    codec = Codec(predictor)
    return codec.combine_parts([codec.decode_json(body)])


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("form", ["records", "rows", "columns", "one after the other", "a table"])
def test_a_column_is_preserved(name: str, form: str) -> None:
    table, schema = schema_of(COLUMNS[name])
    sent = {
        "records": lambda: [table.to_dict("records")],
        "rows": lambda: [table.astype(object).to_numpy().tolist()],
        "columns": lambda: [table.astype(object).to_dict("list")],
        "one after the other": lambda: [[record] for record in table.to_dict("records")],
        "a table": lambda: [],
    }[form]()
    parts = [decoded(msgspec.json.encode({"inputs": to_json_value(inputs)}), schema) for inputs in sent]
    if form == "one after the other":  # one client's missing value changes no other client's column
        assert {str(part["x"].dtype) for part in parts} == {str(table["x"].dtype)}
    request_table = pd.concat(parts, ignore_index=True) if parts else make_request_table(table, schema)
    assert str(request_table["x"].dtype) == str(table["x"].dtype)
    if isinstance(table["x"].dtype, pd.CategoricalDtype):
        assert request_table["x"].dtype == table["x"].dtype
        assert request_table["x"].cat.ordered == table["x"].cat.ordered
        assert request_table["x"].cat.categories.dtype == table["x"].cat.categories.dtype
    pd.testing.assert_series_equal(request_table["x"], table["x"], check_exact=True, check_freq=False)


def test_a_missing_truth_value_keeps_the_type_that_negates() -> None:
    _, schema = schema_of(COLUMNS["boolean"])
    request_table = decoded(b'[{"x": true}, {"x": false}]', schema)
    assert (~request_table["x"]).tolist() == [False, True]


def test_ordered_categories_can_be_compared() -> None:
    _, schema = schema_of(COLUMNS["category_ordered"])
    assert (decoded(b'[{"x": "S"}, {"x": "L"}]', schema)["x"] >= "M").tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "sent", "says"),
    [
        ("times", "2024-01-01T12:00:00+02:00", "has a time zone, but the training data has none"),
        ("times", "2024-01-01T12:00:00Z", "has a time zone, but the training data has none"),
        ("times_arrow", "2024-01-01T12:00:00Z", "has a time zone, but the training data has none"),
        ("times_in_berlin", "2024-01-01T12:00:00", "has no time zone, but the training data has one"),
        ("times", "02.01.2024", "'02.01.2024' is not a date or time, such as 2026-01-31"),  # February in pandas
        ("dates", "02.01.2024", "'02.01.2024' is not a date or time"),
        ("dates", "today", "'today' is not a date or time"),
        ("times_in_berlin", "2024-01-01", "has no time zone, but the training data has one"),
        ("times", "now", "'now' is not a date or time"),
        ("times_in_utc", "today", "'today' is not a date or time"),
        ("times", "0000-01-01", "'0000-01-01' is not a date or time"),
        ("times_in_seconds", "2024-01-01T12:00:00.5", "has more decimals, but the training data has none"),
        ("times_arrow", "2024-01-01T12:00:00.123456789", "has more decimals, but the training data has none"),
        ("dates", "2024-01-01T12:00:00", "has a time of day, but the training data has none"),
        ("dates_arrow", "2024-01-01T12:00:00", "has a time of day, but the training data has none"),
        ("dates", "12:30", "'12:30' is not a date or time"),  # pandas reads it as a time of today
        ("dates", "01/02/2024", "is not a date or time"),
        ("dates", "2024Q3", "is not a date or time"),
        ("dates", "0000", "is not a date or time"),
        ("category_of_times", "01/02/2024", "'01/02/2024' is not one of"),
        ("category_of_integers", True, "True is not one of 1, 2"),
        ("float32", 1e39, "1e[+]39 is out of range for float32"),
        ("float16", 70000, "70000 is out of range for float16"),
        ("durations", "P1M", "'P1M' is not a duration"),  # pandas reads it as a minute
        ("durations", 5, "5 is not a duration"),
        ("durations_in_seconds", "PT0.5S", "'PT0.5S' is not a duration"),
        ("clocks", "12:30:00Z", "is not a time of day without a time zone"),
        ("clocks_arrow_in_seconds", "12:30:00.5", "is not a time of day"),
        ("months", "2024-01-15", "'2024-01-15' is not a period"),
        ("months", "NaT", "'NaT' is not a period"),
        ("months", "12:30:00.0000001", "is not a period"),  # for which pandas raises an AttributeError
        ("bytes", "a", "'a' is not a string in base64"),
        ("uuids", "1", "'1' is not a UUID"),
    ],
)
def test_what_would_become_another_value_is_refused(name: str, sent: Any, says: str) -> None:
    _, schema = schema_of(COLUMNS[name])
    for rows in (1, 100):
        with pytest.raises(InputError, match=f"column 'x', row 0: .*{says}"):
            make_request_table([{"x": sent}] * rows, schema)
    with pytest.raises(InputError):
        decoded(msgspec.json.encode([{"x": sent}]), schema)


def test_a_whole_number_that_a_float_may_have_rounded_is_refused() -> None:
    _, schema = schema_of(COLUMNS["beyond_floats"])
    assert make_request_table(pd.DataFrame({"x": [2.0**53 - 1, np.nan]}), schema)["x"].tolist()[0] == 2**53 - 1
    for rounded in (2.0**60, float(2**53 + 1)):
        with pytest.raises(InputError, match="row 1: .* too large for a float to represent exactly"):
            make_request_table(pd.DataFrame({"x": [np.nan, rounded]}), schema)


def test_a_typed_whole_number_that_half_precision_cannot_hold_is_refused() -> None:
    _, schema = schema_of(COLUMNS["float16"])
    with pytest.raises(InputError, match="70000 is out of range for float16"):
        make_request_table(pd.DataFrame({"x": np.array([1, 70000])}), schema)


@pytest.mark.parametrize("name", ["times", "dates", "dates_arrow"])
@pytest.mark.parametrize("sent", ["01/02/2024", "１", "2024-01-01 00:00:00 UTC", "now"])
def test_a_time_in_a_column_of_texts_is_refused_as_in_json(name: str, sent: str) -> None:
    _, schema = schema_of(COLUMNS[name])
    for column in ([sent], pd.Categorical([sent])):
        with pytest.raises(InputError, match="column 'x', row 0: "):
            make_request_table(pd.DataFrame({"x": column}), schema)


def test_categories_are_found_by_half_precision() -> None:
    _, schema = schema_of(COLUMNS["category_of_mixed"])
    assert make_request_table(pd.DataFrame({"x": np.array([1.0], "float16")}), schema)["x"].tolist() == [1]


def test_half_of_a_surrogate_pair_is_refused_where_python_sends_it() -> None:
    for name in ("float64", "str"):
        _, schema = schema_of(COLUMNS[name])
        predictor = Predictor(
            App("dtypes"),
            None,
            frameworks.get_framework("sklearn"),
            ModelSchema(features=schema, predictions=Schema(kind="any")),
        )
        with pytest.raises(InputError, match="column 'x'"):
            predictor.predict([{"x": "\ud800"}])


def test_a_record_whose_cells_are_lists_is_one_row() -> None:
    _, schema = schema_of(COLUMNS["lists"])
    assert make_request_table({"x": [1, 2]}, schema)["x"].tolist() == [[1, 2]]
    assert make_request_table({"x": [[1, 2], [3]]}, schema)["x"].tolist() == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("category_of_times", "2024-01-02 00:00:00"),
        ("category_of_times", "2024-01-02"),
        ("category_of_times_in_berlin", "2024-01-01T23:00:00Z"),
        ("category_of_timedeltas", "PT1H"),
        ("category_of_timedeltas", "0 days 01:00:00"),
        ("category_of_clocks", "02:00"),
    ],
)
def test_a_category_may_be_written_in_another_way(name: str, sent: str) -> None:
    table, schema = schema_of(COLUMNS[name])
    assert make_request_table([{"x": sent}], schema)["x"][0] == table["x"][1]
    with pytest.raises(InputError, match="is not one of"):
        make_request_table([{"x": "2031-01-01T12:00:00Z"}], schema)


@pytest.mark.parametrize(
    ("sent", "hours"),
    [("PT1H30M", 1.5), ("P1DT2H", 26), ("-PT0.5H", None), ("1 days 02:00:00", 26), ("P-1DT23H0M0S", -1), ("P1W", 168)],
)
def test_durations_are_iso_8601_or_pandas_text(sent: str, hours: float | None) -> None:
    _, schema = schema_of(COLUMNS["durations"])
    if hours is None:
        with pytest.raises(InputError, match="is not a duration"):
            make_request_table([{"x": sent}], schema)
    else:
        assert make_request_table([{"x": sent}], schema)["x"][0] == pd.Timedelta(hours=hours)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_duration_keeps_its_nanoseconds(nanoseconds: int) -> None:
    duration = pd.Timedelta(nanoseconds)
    texts = format_duration(nanoseconds), duration.isoformat(), str(duration)
    assert [parse_duration(text) for text in texts] == [nanoseconds] * 3
    assert pd.Timedelta(texts[0]) == duration


def test_a_time_without_a_zone_is_utc_where_training_s_are() -> None:
    _, schema = schema_of(COLUMNS["times_in_utc"])
    times = make_request_table([{"x": "2024-01-01T12:00:00"}, {"x": "2024-01-01T12:00:00+02:00"}], schema)["x"]
    assert [time.hour for time in times] == [12, 10]


def test_columns_of_one_request_are_decoded_as_rows_are_by_several_threads() -> None:
    table = pd.DataFrame({name: COLUMNS[name] for name in ("int64", "nan", "str", "category", "times", "Int64")})
    schema = infer_schema(table)
    schemas = ModelSchema(features=schema, predictions=Schema(kind="any"))
    app = App("threads")
    app.predictor(lambda model, features: features.astype(str).to_numpy().tolist())
    predictor = Predictor(app, None, frameworks.get_framework("sklearn"), schemas)
    expected = table.astype(str).to_numpy().tolist()
    records = to_json_value(table.astype(object).to_dict("records"))
    forms = [records, to_json_value(table.astype(object).to_dict("list")), table]
    with ThreadPoolExecutor(4) as threads:
        assert all(predictions == expected for predictions in threads.map(predictor.predict, forms * 8))
        assert list(threads.map(predictor.predict, records)) == [[row] for row in expected]


def test_an_example_can_be_sent_where_training_had_infinity() -> None:
    _, schema = schema_of([np.inf, 1.5, 2.5, -np.inf] * 2)
    assert schema.example_inputs() == [{"x": 0.0}]
    assert decoded(msgspec.json.encode(schema.example_inputs()), schema)["x"].tolist() == [0.0]
    _, schema = schema_of([np.inf, 1.5] * 4)
    assert make_request_table(schema.example_inputs(), schema)["x"].tolist() == [1.5]
