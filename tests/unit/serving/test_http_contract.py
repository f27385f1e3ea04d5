"""The contract of /predict: accepted formats, and the answer to each error."""

from __future__ import annotations

import gzip
import io
import json
import struct

import numpy as np
import pandas as pd
import pytest

from mlapp import App
from tests import core_install

from .conftest import Sums

pytestmark = pytest.mark.anyio
RECORD = {"age": 3, "income": 1.5, "city": "Bern", "vip": True, "note": "x"}


@pytest.fixture
async def client(people, serve):
    async with serve(*people) as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": [RECORD]},
        [RECORD],
        {"inputs": [dict(reversed(RECORD.items()))]},
        {"inputs": [list(RECORD.values())]},
        {"inputs": {name: [value] for name, value in RECORD.items()}},
        {"inputs": RECORD},
        {"inputs": [RECORD | {"age": 3.0}]},
    ],
    ids=["records", "bare list", "any order", "rows", "columns", "one record", "whole float"],
)
async def test_forms_of_the_same_inputs(client, body):
    response = await client.post("/predict", json=body)
    assert response.status_code == 200, response.text
    assert response.json() == {"predictions": ["Bern 3 True 1.5"], "model": "people", "version": None}


async def test_missing_value_only_where_training_had_one(client):
    response = await client.post("/predict", json=[RECORD | {"income": None}])
    assert response.json()["predictions"] == ["Bern 3 True nan"]
    response = await client.post("/predict", json=[RECORD, RECORD | {"age": None}])
    assert response.status_code == 422
    assert response.json()["errors"][0] | {"detail": ""} == {"field": "age", "row": 1, "detail": ""}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"age": "3"}, "age"),
        ({"age": 3.5}, "age"),
        ({"age": True}, "age"),
        ({"age": 2**70}, "age"),
        ({"income": "1.5"}, "income"),
        ({"city": "Oslo"}, "city"),
        ({"vip": 1}, "vip"),
        ({"note": 5}, "note"),
        ({"note": None}, "note"),
        ({"extra": 1}, "extra"),
    ],
)
async def test_wrong_value_names_its_field_and_row(client, change, field):
    response = await client.post("/predict", json={"inputs": [RECORD, RECORD | change]})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["errors"][0]["field"], response.json()["errors"][0]["row"]) == (field, 1)


async def test_missing_column_is_named(client):
    response = await client.post("/predict", json=[{name: RECORD[name] for name in RECORD if name != "city"}])
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "city"


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "not JSON"),
        (b'{"inputs": [[NaN]]}', 400, "send null"),
        (b"\xff\xfe[", 400, "not JSON"),
        (b'["\xff"]', 400, "UTF-8"),
        (b'{"inputs": [{"\xaf": 1}]}', 400, "UTF-8"),
        (b"[" * 10_000 + b"]" * 10_000, 400, "nested"),
        (b'{"inputs":' * 10_000 + b"1" + b"}" * 10_000, 400, "nested"),
        (b'{"inputs": [], "inputs": []}', 400, "'inputs' twice"),
        (b'{"inputs": [{"age": 1, "age": 2}]}', 400, "'age' twice"),
        (b"1", 422, "a number"),
        (b'"x"', 422, "a string"),
        (b"null", 422, "null"),
        (b"{}", 422, "no 'inputs'"),
        (b'{"inputs": [1], "features": [1]}', 422, "both"),
        (b'{"inputs": [1], "other": 1}', 422, "unknown key 'other'"),
        (b'{"inputs": []}', 422, "empty"),
        (b"[]", 422, "empty"),
        (b'{"inputs": 5}', 422, ""),
        (b'{"inputs": null}', 422, ""),
        (b'{"inputs": [5]}', 422, ""),
        (b'{"inputs": [[1], {"a": 1}]}', 422, "row 1"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
async def test_wrong_bodies(client, body, status, says):
    response = await client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status, response.text
    assert says in response.json()["detail"]


async def test_keys_twice_are_seen_in_the_fast_way_too(client):
    record = json.dumps(RECORD)
    twice = record[:-1] + ', "age": 4}'
    response = await client.post("/predict", content=f'{{"inputs": [{twice}]}}')
    assert response.status_code == 400
    assert "'age' twice" in response.json()["detail"]
    quoted = json.dumps({"inputs": [RECORD | {"note": 'say "hi"'}]})
    assert (await client.post("/predict", content=quoted)).status_code == 200


async def test_byte_order_mark_is_passed_over(client):
    body = b"\xef\xbb\xbf" + json.dumps({"inputs": [RECORD]}).encode()
    assert (await client.post("/predict", content=body)).status_code == 200


async def test_packed_body(client):
    body = gzip.compress(json.dumps([RECORD]).encode())
    assert (await client.post("/predict", content=body, headers={"content-encoding": "gzip"})).status_code == 200
    assert (await client.post("/predict", content=body, headers={"content-encoding": "br"})).status_code == 415
    assert (await client.post("/predict", content=b"x", headers={"content-encoding": "gzip"})).status_code == 400
    assert (await client.post("/predict", content=body[:-9], headers={"content-encoding": "gzip"})).status_code == 400


async def test_too_large(people, serve):
    async with serve(*people, max_body=1000) as client:
        assert (await client.post("/predict", content=b" " * 1001)).status_code == 413
        bomb = gzip.compress(b" " * 10_000_000)
        assert len(bomb) > 1000
        async with serve(*people, max_body=100_000) as wide:
            assert (await wide.post("/predict", content=bomb, headers={"content-encoding": "gzip"})).status_code == 413

        async def unannounced():
            for _ in range(20):
                yield b" " * 100

        assert (await client.post("/predict", content=unannounced())).status_code == 413


async def test_unknown_content_type_says_what_to_send(client):
    response = await client.post("/predict", content=b"a=1", headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert "application/json" in response.json()["detail"]


async def test_curl_without_a_content_type_reads_which_header_to_add(client):
    form = {"content-type": "application/x-www-form-urlencoded"}
    response = await client.post("/predict", content=b'{"inputs": [[1]]}', headers=form)
    assert response.status_code == 415
    assert "-H 'Content-Type: application/json'" in response.json()["detail"]


async def test_an_arrow_body_with_types_of_pandas_that_are_none_is_refused(client):
    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(pd.DataFrame({"day": pd.to_datetime(["2026-01-01"])}))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = sink.getvalue().replace(b"datetime64", b"datetime63")
    assert content != sink.getvalue()
    response = await client.post(
        "/predict", content=content, headers={"content-type": "application/vnd.apache.arrow.stream"}
    )
    assert response.status_code == 400


async def test_an_arrow_body_that_points_out_of_itself_is_refused(client):
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"note": pa.array(["here"], pa.large_string())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    offsets, far = struct.pack("<qq", 0, 4), struct.pack("<qq", 0, 2**35)
    assert sink.getvalue().count(offsets) == 1
    content = sink.getvalue().replace(offsets, far)
    response = await client.post(
        "/predict", content=content, headers={"content-type": "application/vnd.apache.arrow.stream"}
    )
    assert response.status_code == 400
    assert "not Arrow IPC" in response.json()["detail"]


async def test_csv_arrow_and_npy(numbers, people, serve, client):
    text = "age,income,city,vip,note\n3,1.5,Bern,true,x\n4,,Rome,false,007\n"
    response = await client.post("/predict", content=text, headers={"content-type": "text/csv"})
    assert response.json()["predictions"] == ["Bern 3 True 1.5", "Rome 4 False nan"]

    pa = pytest.importorskip("pyarrow")
    table = pa.Table.from_pandas(pd.DataFrame([RECORD]))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    arrow = {"content-type": "application/vnd.apache.arrow.stream"}
    response = await client.post("/predict", content=sink.getvalue(), headers=arrow)
    assert response.json()["predictions"] == ["Bern 3 True 1.5"], response.text
    assert (await client.post("/predict", content=b"nonsense", headers=arrow)).status_code == 400

    async with serve(*numbers) as other:
        sink = io.BytesIO()
        np.save(sink, np.array([[1.0, 2.0], [3.0, 4.0]]))
        npy = {"content-type": "application/x-npy"}
        response = await other.post("/predict", content=sink.getvalue(), headers=npy)
        assert response.json()["predictions"] == [3.0, 7.0], response.text
        unclosed = sink.getvalue().replace(b"(2, 2), }", b"(2, 2),  ")
        endless = sink.getvalue().replace(b"(2, 2), }                 ", b"(99999999999, 9999999), }")
        for wrong in (b"", b"\x93NUMPY\x01\x00v\x00nonsense", sink.getvalue()[:-3], b"PK\x03\x04", unclosed, endless):
            assert wrong != sink.getvalue()
            assert (await other.post("/predict", content=wrong, headers=npy)).status_code == 400


async def test_unknown_paths_and_methods(client):
    assert (await client.get("/nothing")).status_code == 404
    response = await client.get("/predict")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert (await client.head("/livez")).status_code == 200


async def test_request_id_is_kept_or_made(client):
    assert (await client.get("/livez", headers={"x-request-id": "mine-1"})).headers["x-request-id"] == "mine-1"
    made = {(await client.get("/livez", headers={"x-request-id": "a b"})).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3


async def test_deadline_header_must_be_a_number(client):
    for wrong in ("x", "-1", "0", "nan", "inf", "1_0", "0x10", b"\xb2", "1e999"):
        response = await client.post("/predict", json=[RECORD], headers={"x-request-timeout": wrong})
        assert response.status_code == 400


def write_arrow(table: pd.DataFrame) -> bytes:
    """The table as a stream of Arrow; nothing in `make test-core`, which has no pyarrow."""
    if core_install.IS_ACTIVE:
        return b""
    import pyarrow as pa

    arrow = io.BytesIO()
    with pa.ipc.new_stream(arrow, pa.Table.from_pandas(table).schema) as stream:
        stream.write_table(pa.Table.from_pandas(table))
    return arrow.getvalue()


def bodies_with(columns: dict[str, object]) -> dict[str, tuple[str, dict[str, object]]]:
    """Requests for one row of these columns, by what sends it: the path, and what httpx takes."""
    table = pd.DataFrame({name: [value] for name, value in columns.items()})
    tensors = [
        {
            "name": name,
            "shape": [1],
            "datatype": {str: "BYTES", bool: "BOOL", float: "FP64", int: "INT64"}[type(value)],
            "data": [value],
        }
        for name, value in columns.items()
    ]

    def as_(media: str, content: bytes) -> dict[str, object]:
        return {"content": content, "headers": {"content-type": media}}

    split = {"columns": list(columns), "data": [list(columns.values())]}
    return {
        "records": ("/predict", {"json": [columns]}),
        "columns": ("/predict", {"json": {"inputs": {name: [value] for name, value in columns.items()}}}),
        "one record": ("/predict", {"json": {"inputs": columns}}),
        "UnionML's": ("/predict", {"json": {"features": [columns]}}),
        "CSV": ("/predict", as_("text/csv", table.to_csv(index=False).encode())),
        "Arrow": ("/predict", as_("application/vnd.apache.arrow.stream", write_arrow(table))),
        "MLflow's records": ("/invocations", {"json": {"dataframe_records": [columns]}}),
        "MLflow's split": ("/invocations", {"json": {"dataframe_split": split}}),
        "v2": ("/v2/models/people/infer", {"json": {"inputs": tensors}}),
    }


FORMS = [
    pytest.param(name, marks=[pytest.mark.needs("pyarrow")] if name == "Arrow" else [])
    for name in bodies_with({"age": 1})
]


@pytest.mark.parametrize("form", FORMS)
async def test_the_target_may_be_sent_along_and_unknown_columns_are_named(people, serve, form):
    app, trained = people
    async with serve(app, trained) as client:
        path, known = bodies_with(RECORD | {"y": 1})[form]
        answer = await client.post(path, **known)
        assert answer.status_code == 200, answer.text
        assert "Bern 3 True 1.5" in answer.text
        path, unknown = bodies_with(RECORD | {"other": 1})[form]
        answer = await client.post(path, **unknown)
        assert answer.status_code in (400, 422)
        assert "'other'" in answer.text
    async with serve(app, trained, extra="ignore") as client:
        answer = await client.post(path, **unknown)
        assert answer.status_code == 200, answer.text
        assert "Bern 3 True 1.5" in answer.text


@pytest.fixture(scope="module")
def arrays() -> tuple[App, object]:
    app = App("people", target="y")  # as in the paths of `bodies_with`
    app.data_reader(lambda: pd.DataFrame({"a": np.arange(40) + 0.5, "b": np.arange(40) * 2.0, "y": [0, 1] * 20}))
    app.data_parser(lambda data: (data[["a", "b"]].to_numpy(), data["y"].to_numpy()))
    app.model(Sums)
    return app, app.train()


@pytest.mark.parametrize("form", [form for form in FORMS if form.values != ("v2",)])  # there, an array is one tensor
async def test_a_model_of_arrays_ignores_unknown_columns_if_asked_to(arrays, serve, form):
    path, unknown = bodies_with({"z": 7.0, "b": 2.0, "a": 40.0})[form]
    async with serve(*arrays) as client:
        answer = await client.post(path, **unknown)
        assert answer.status_code in (400, 422)
        assert "'z'" in answer.text
    async with serve(*arrays, extra="ignore") as client:
        answer = await client.post(path, **unknown)
        assert answer.status_code == 200, answer.text
        assert "42" in answer.text
