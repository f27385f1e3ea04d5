"""Bodies of a few bytes that mean gigabytes, or millions of things to complain of: told at once, in no memory."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.anyio

ARROW = "application/vnd.apache.arrow.stream"
NPY = "application/x-npy"
LIMIT = 1_000_000


@pytest.fixture
async def client(numbers, serve):
    async with serve(*numbers, max_body=LIMIT) as client:
        yield client


async def send(client, media: str, body: bytes, path: str = "/predict"):
    return await client.post(path, content=body, headers={"content-type": media})


def ipc(table, form: str = "stream", compression: str | None = None) -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("form", ["stream", "file"])
async def test_arrow_is_read_packed_or_not(client, form, compression):
    import pyarrow as pa

    body = ipc(pa.table({"a": [1.0] * 100, "b": [2.0] * 100}), form, compression)
    answer = await send(client, ARROW, body)
    assert answer.json()["predictions"] == [3.0] * 100


@pytest.mark.parametrize(
    ("make", "status", "says"),
    [
        (lambda pa: {"a": np.zeros(10**6), "b": np.zeros(10**6)}, 413, "more than"),
        (lambda pa: {"a": pa.nulls(10**8), "b": pa.nulls(10**8)}, 413, "more than"),
        (lambda pa: {"a": pa.array(["x" * 10**6] * 2).dictionary_encode(), "b": [1.0, 2.0]}, 413, "more than"),
        (lambda pa: {"a": pa.array([[None] * 9])}, 400, "'a' is of type list<item: null>"),
        (lambda pa: {"a": pa.RunEndEncodedArray.from_arrays([10**8], [1.0])}, 400, "'a' is of type run_end_encoded"),
    ],
    ids=["zeros", "nulls", "dictionary", "lists", "runs"],
)
async def test_arrow_that_would_grow_is_refused_before_it_does(client, make, status, says):
    import pyarrow as pa

    body = ipc(pa.table(make(pa)), compression="zstd")
    assert len(body) < LIMIT / 10
    answer = await send(client, ARROW, body)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(("dtype", "shape"), [("<U0", (10**9, 2)), ("|V0", (10**9, 2)), ("<f8", (10**9, 0))])
async def test_an_array_without_bytes_has_no_rows(client, dtype, shape):
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, header)
    assert (await send(client, NPY, sink.getvalue())).status_code == 422


async def test_a_tensor_without_values_has_no_rows(client):
    tensor = {"name": "inputs", "datatype": "FP64", "shape": [10**9, 0], "data": []}
    answer = await client.post("/v2/models/numbers/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert "nothing to predict" in answer.json()["error"]


@pytest.mark.parametrize(
    ("media", "body", "status"),
    [
        ("text/csv", b"," * 500_000 + b"\n1\n", 400),
        ("application/json", b"[" + b"[]," * 200_000 + b"[]]", 422),
        ("application/json", b"[" + b"{}," * 200_000 + b"{}]", 422),
        ("application/json", json.dumps({"inputs": {f"x{at}": [1] for at in range(50_000)}}).encode(), 422),
        ("application/json", json.dumps([{f"x{at}": 1 for at in range(50_000)}]).encode(), 422),
    ],
    ids=["columns of a CSV", "rows", "records", "columns", "keys"],
)
async def test_of_many_faults_the_first_are_told(client, media, body, status):
    answer = await send(client, media, body)
    assert answer.status_code == status
    assert len(answer.content) < 5000


async def test_rows_behind_the_end_of_a_gzip_are_not_left_out(client):
    import gzip

    body = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}
    answer = await client.post("/predict", content=body, headers=headers)
    assert answer.status_code == 400
    assert "behind its end" in answer.json()["detail"]


async def test_a_feather_file_of_pandas_is_read(client, tmp_path):
    pd.DataFrame({"a": [1.0], "b": [2.0]}).to_feather(tmp_path / "rows.feather")
    answer = await send(client, "application/vnd.apache.arrow.file", (tmp_path / "rows.feather").read_bytes())
    assert answer.json()["predictions"] == [3.0]
