"""A large body gives the same result when it is read in pieces; here pieces have a few bytes."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from mlapp.config import Serve
from mlapp.errors import InputError
from mlapp.prediction import make_predictor
from mlapp.serving.decoding import json_chunks, large_json
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.protocols import open_inference_request
from mlapp.serving.web.budget import Budget

pytestmark = pytest.mark.anyio
TEXTS = ["x", "],[", "},{", '","', ",", '"', "\\", '\\",', "é \n", "[[", "}", ""]
RECORDS = [
    {"age": row, "income": None if row % 7 == 3 else row / 2, "city": ["Bern", "Rome"][row % 2], "vip": row % 3 == 0}
    for row in range(120)
]
PLAIN = [{**record, "note": f"n{row}"} for row, record in enumerate(RECORDS)]
ODD = [{**record, "note": TEXTS[row % len(TEXTS)]} for row, record in enumerate(RECORDS)]
NAMES = list(PLAIN[0])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(json_chunks, "CHUNK_BYTES", 100)
    monkeypatch.setattr(large_json, "LARGE", 200)
    monkeypatch.setattr(open_inference_request, "LARGE", 200)


def rows_of(records, names=NAMES):
    return [[record[name] for name in names] for record in records]


def split(records, names=NAMES, **more):
    return {"dataframe_split": {**more, "columns": names, "data": rows_of(records, names)}}


FORMS = {
    "split": ("/invocations", split),
    "split in another order": ("/invocations", lambda records: split(records, NAMES[::-1])),
    "split with an index": ("/invocations", lambda records: split(records, index=list(range(len(records))))),
    "split without columns": ("/invocations", lambda records: {"dataframe_split": {"data": rows_of(records)}}),
    "records for MLflow": ("/invocations", lambda records: {"dataframe_records": records}),
    "instances": ("/invocations", lambda records: {"instances": rows_of(records)}),
    "inputs for MLflow": ("/invocations", lambda records: {"inputs": records}),
    "columns": ("/predict", lambda records: {"inputs": {name: [row[name] for row in records] for name in NAMES}}),
    "records": ("/predict", lambda records: {"inputs": records}),
    "rows": ("/predict", lambda records: {"inputs": rows_of(records)}),
    "bare list": ("/predict", lambda records: records),
}
forms = pytest.mark.parametrize(("path", "form"), FORMS.values(), ids=FORMS)


@pytest.fixture
async def client(people, serve):
    async with serve(*people) as client:
        yield client


@forms
@pytest.mark.parametrize("records", [PLAIN, ODD], ids=["plain", "odd texts"])
async def test_every_form_of_a_large_body_has_a_prediction_for_each_row(client, path, form, records):
    answer = await client.post(path, json=form(records))
    expected = [f"{row['city']} {row['age']} {row['vip']} {float(row['income'] or 'nan')}" for row in records]
    expected[0] = "Bern 0 True 0.0"
    assert answer.json()["predictions"] == expected


@forms
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"age": 3.5}, "column 'age', row 101: 3.5 is not a whole number"),
        ({"city": "Oslo"}, "column 'city', row 101: 'Oslo' is not one of Bern, Rome"),
        ({"vip": None}, "column 'vip', row 101: the value is missing; the training data had no missing values"),
    ],
)
async def test_a_wrong_value_far_behind_is_named_by_its_row_in_the_whole(client, path, form, change, says):
    records = [*PLAIN[:101], {**PLAIN[101], **change}, *PLAIN[102:]]
    answer = await client.post(path, json=form(records))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"detail": says, "field": next(iter(change)), "row": 101}]


@pytest.mark.parametrize(
    ("odd", "status", "says"),
    [
        ('{"age": 1, "age": 2}', 400, "the key 'age' twice"),
        ('{"age": 1}', 422, "row 120 lacks 'income'"),
        ("[1]", 422, "row 120 is not of the same kind as row 0"),
        ("5", 422, "contains a int instead of a record or a row"),
        ('{"age": 1}, {"age": ', 400, "not JSON"),
        ('{"age": 1},', 400, "not JSON"),
    ],
)
@pytest.mark.parametrize("before", ["", '{"inputs": ', '{"dataframe_records": '])
async def test_what_is_wrong_at_the_end_of_a_large_body(client, odd, status, says, before):
    path = "/invocations" if "records" in before else "/predict"
    body = f"{before}{json.dumps(PLAIN)[:-1]}, {odd}]{'}' if before else ''}"
    answer = await client.post(path, content=body)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


async def test_a_row_of_another_length_in_a_split_is_refused(client):
    body = split(PLAIN)
    body["dataframe_split"]["data"][90].append(1)
    answer = await client.post("/invocations", json=body)
    assert (answer.status_code, "not as long as" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("key", ["data", "columns"])
async def test_a_split_with_a_key_twice_is_refused(client, key):
    inner = json.dumps(split(PLAIN)["dataframe_split"])
    twice = inner[:-1] + f', "{key}": {json.dumps(split(PLAIN)["dataframe_split"][key])}}}'
    answer = await client.post("/invocations", content=f'{{"dataframe_split": {twice}}}')
    assert (answer.status_code, f"'{key}' twice" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize("records", [PLAIN, ODD], ids=["plain", "odd texts"])
@pytest.mark.parametrize("is_nested", [False, True])
async def test_tensors(client, records, is_nested):
    kinds = {"age": "INT64", "city": "BYTES", "vip": "BOOL", "note": "BYTES", "income": "FP64"}
    tensors = [
        {
            "name": name,
            "datatype": kind,
            "shape": [len(records), 1],
            "data": [[row[name] or 0] if is_nested else row[name] or 0 for row in records],
        }
        for name, kind in kinds.items()
    ]
    for row, record in enumerate(records):
        for tensor in tensors:
            if tensor["datatype"] in ("BYTES", "BOOL"):
                value = record[tensor["name"]]
                tensor["data"][row] = [value] if is_nested else value
    answer = await client.post("/v2/models/people/infer", json={"inputs": tensors})
    expected = [f"{row['city']} {row['age']} {row['vip']} {float(row['income'] or 0)}" for row in records]
    assert answer.json()["outputs"][0]["data"] == expected
    tensors[0]["data"][-1] = True
    answer = await client.post("/v2/models/people/infer", json={"inputs": tensors})
    assert (answer.status_code, answer.json()["error"]) == (400, "Tensor 'age': a value is not of INT64.")


async def test_tensors_without_values_or_of_another_number(client):
    tensor = {"name": "age", "datatype": "INT64", "shape": [7], "data": [1] * 200}
    for change, says in [
        ({}, "has 200 values, not those of [7]"),
        ({"data": None, "parameters": {"x": "y" * 200}}, "has no data"),
        ({"datatype": "INT65"}, "datatype 'INT65' is not known"),
        ({"data": {"x": [1] * 200}}, "Expected `array | null`, got `object` - at `$.inputs[0].data`"),
    ]:
        answer = await client.post("/v2/models/people/infer", json={"inputs": [tensor | change]})
        assert (answer.status_code, says in answer.json()["error"]) == (400, True), answer.text


def test_features_are_those_of_the_whole(people, numbers):
    codec = Codec(make_predictor(people[1]))
    part = large_json.decode_large_json(codec, json.dumps(PLAIN).encode(), Budget(Serve(), 30))
    general = codec.predictor.accept_inputs(PLAIN)
    pd.testing.assert_frame_equal(codec.combine_parts([part]), general, check_column_type=False)
    codec = Codec(make_predictor(numbers[1]))
    rows = [[row, row / 3] for row in range(100)]
    assert (
        large_json.decode_large_json(codec, json.dumps(rows).encode(), Budget(Serve(), 30)).packed
        == codec.accept_inputs(rows).packed
    )


def test_where_training_had_whole_numbers_and_dates():
    from mlapp import App

    app = App("days", target="y")

    @app.data_reader
    def read() -> pd.DataFrame:
        days = pd.date_range("2026-01-01", periods=20)
        return pd.DataFrame({"day": days, "small": pd.Series(range(20), dtype="int8"), "y": range(20)})

    class Model:
        def fit(self, features, target=None):
            return self

        def predict(self, features):
            return [0] * len(features)

    app.model(Model)
    codec = Codec(make_predictor(app.train()))
    records = [{"day": f"2026-01-{row % 30 + 1:02}T00:00:0{row % 10}", "small": row} for row in range(100)]
    part = large_json.decode_large_json(codec, json.dumps(records).encode(), Budget(Serve(), 30))
    pd.testing.assert_frame_equal(
        codec.combine_parts([part]), codec.predictor.accept_inputs(records), check_column_type=False
    )
    with pytest.raises(InputError, match="column 'small', row 100: 128 is out of range for int8"):
        large_json.decode_large_json(
            codec, json.dumps([*records, {"day": "2026-01-01", "small": 128}]).encode(), Budget(Serve(), 30)
        )


NUMBERS = {
    "floats": [0.1 + 0.2, -1e300, 5e-324, 2.5],
    "a whole number": [1, 2.5, 2**53 + 1, 2**70],
    "minus zero": [-0.0, 1.5, 0.0, -1.0],
    "a missing value": [1.0, None, 2.0, 3.0],
    "a truth value": [1.0, True, 2.0, 3.0],
    "a text": [1.0, "2", 2.0, 3.0],
}


@pytest.mark.parametrize("cells", NUMBERS.values(), ids=NUMBERS)
async def test_large_columns_of_floats_mean_the_same_as_small_ones(numbers, serve, cells, monkeypatch):
    body = json.dumps({"inputs": {"a": cells * 10, "b": [float(at) for at in range(40)]}}).encode()
    async with serve(*numbers) as client:
        large = await client.post("/predict", content=body)
        monkeypatch.setattr(large_json, "LARGE", len(body) + 1)
        small = await client.post("/predict", content=body)
    assert (large.status_code, large.content) == (small.status_code, small.content)
