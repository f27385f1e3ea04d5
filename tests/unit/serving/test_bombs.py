"""Small bodies that expand to gigabytes or to millions of errors are refused immediately, with little memory."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import time

import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.config import Serve
from mlapp.serving.decoding import codec, media_types
from mlapp.serving.decoding.threads import decode_in_thread
from mlapp.serving.web.budget import Budget, CancelledBudgetError
from mlapp.serving.web.http import ClientDisconnected
from tests.unit.serving.conftest import Sums

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


@pytest.mark.parametrize("shape", [[2**70, 2], [2**62, 2], [1] * 70, [2**40, 2**40]])
async def test_a_shape_beyond_any_array_is_the_clients_fault(client, shape):
    tensor = {"name": "inputs", "datatype": "FP64", "shape": shape, "data": [1, 2]}
    answer = await client.post("/v2/models/numbers/infer", json={"inputs": [tensor]})
    assert (answer.status_code, "2 values" in answer.json()["error"]) == (400, True), answer.text


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
async def test_only_the_first_of_many_errors_are_listed(client, media, body, status):
    answer = await send(client, media, body)
    assert answer.status_code == status
    assert len(answer.content) < 5000


async def test_rows_behind_the_end_of_a_gzip_are_not_left_out(client):
    import gzip

    body = gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n")
    headers = {"content-type": "text/csv", "content-encoding": "gzip"}
    answer = await client.post("/predict", content=body, headers=headers)
    assert answer.status_code == 400
    assert "after its end" in answer.json()["detail"]


@pytest.mark.needs("pyarrow")
async def test_a_feather_file_of_pandas_is_read(client, tmp_path):
    pd.DataFrame({"a": [1.0], "b": [2.0]}).to_feather(tmp_path / "rows.feather")
    answer = await send(client, "application/vnd.apache.arrow.file", (tmp_path / "rows.feather").read_bytes())
    assert answer.json()["predictions"] == [3.0]


def shared_view(count: int):
    """String views of one text."""
    import pyarrow as pa

    one = pa.array(["x" * 10**5], pa.string_view())
    _, views, *texts = one.buffers()
    return pa.Array.from_buffers(one.type, count, [None, pa.py_buffer(views.to_pybytes() * count), *texts])


@pytest.mark.parametrize("kind", ["views", "codes", "codes of views"])
async def test_arrow_texts_that_are_one_count_each_time(client, kind):
    import pyarrow as pa

    codes = pa.array(np.zeros(2000, "int8"))
    words = shared_view(1) if kind == "codes of views" else pa.array(["x" * 10**5])
    column = shared_view(2000) if kind == "views" else pa.DictionaryArray.from_arrays(codes, words)
    body = ipc(pa.table({"a": column, "b": np.zeros(2000)}), compression="zstd")
    assert len(body) < 10_000
    answer = await send(client, ARROW, body)
    assert answer.status_code == 413, answer.text
    assert "decode" in answer.json()["detail"]


async def test_arrow_objects_count_for_more(client):
    import pyarrow as pa

    days = pa.array(np.zeros(100_000, "int32"), pa.date32())
    answer = await send(client, ARROW, ipc(pa.table({"a": days, "b": days})))
    assert (answer.status_code, "max_cells" in answer.json()["detail"]) == (413, True), answer.text


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (",".join(f"c{at}" for at in range(10_000)) + "\n" + "1\n" * 3000, 400, "10000 columns"),
        ("a,b\n1,2\n3\n", 422, "row 1"),
        ("a,b\n1,2\n3,4,5\n", 422, "row 1"),
        ('a,b\n"1",2\n"3","4",5\n', 422, "row 1"),
        ("a,b\n" + "1," * 400_000, 422, "row 0"),
        ("a,b\n" + "1\n" * 100_000 + "1," * 300_000, 422, "row 0"),
        ('"a' + "\n" * 10 + '",b\n1,2\n3\n', 422, "row 1"),
        ("a,b\r1,2\r3\r", 422, "row 1"),
        ("a" * 900_000 + ",b\n1,2\n", 422, ""),
    ],
    ids=["wide", "short", "long", "quoted", "one line", "behind short ones", "line in a name", "old Mac", "long name"],
)
async def test_a_csv_has_as_many_cells_in_each_row(client, body, status, says):
    answer = await send(client, "text/csv", body.encode())
    assert answer.status_code == status, answer.text[:500]
    assert says in answer.json()["detail"]


async def test_a_csv_may_have_commas_and_lines_within_quotes(people, serve):
    text = 'age,income,city,vip,note\n3,1.5,Bern,true,"a, b\nc ""d"""\n\n4,,Rome,false,"x"\n'
    async with serve(*people) as client:
        answer = await send(client, "text/csv", text.encode())
    assert answer.json()["predictions"] == ["Bern 3 True 1.5", "Rome 4 False nan"], answer.text


async def test_a_key_that_is_there_twice_is_found_at_once(client):
    keys = [f'"k{at}":1' for at in range(20_000)]
    body = '{"inputs":[{' + ",".join([*keys, keys[-1]]) + "}]}"
    started = time.process_time()
    answer = await send(client, "application/json", body.encode())
    assert (answer.status_code, "'k19999' twice" in answer.json()["detail"]) == (400, True)
    assert time.process_time() - started < 5  # it took longer than that when each key was looked up in all


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[0,[' + b"[]," * 1_050_000 + b"[]]]}",
        b'{"inputs":{"a":[' + b'{"a":1},' * 700_000 + b"{}]}}",
        b'{"inputs":[[' + b"1," * 2_100_000 + b"1]]}",
    ],
    ids=["lists", "objects", "a row"],
)
@pytest.mark.parametrize("path", ["/predict", "/invocations", "/v2/models/numbers/infer"])
async def test_json_that_is_read_as_a_whole_has_a_bound(numbers, serve, path, body):
    async with serve(*numbers) as client:
        answer = await send(client, "application/json", body, path)
    assert answer.status_code == 413, answer.text[:300]


async def test_columns_are_read_in_pieces(numbers, serve):
    values = [float(value) for value in range(60_000)]
    async with serve(*numbers) as client:
        for body in ({"inputs": {"a": values, "b": values}}, {"inputs": {"b": values, "a": values}}):
            answer = await client.post("/predict", json=body)
            assert answer.json()["predictions"] == [2 * value for value in values]
        twice = '{"inputs":{"a":%s,"b":%s,"a":%s}}' % ((json.dumps(values),) * 3)
        assert "'a' twice" in (await send(client, "application/json", twice.encode())).json()["detail"]


async def test_unknown_columns_are_refused_before_they_are_read(numbers, serve, monkeypatch):
    monkeypatch.setattr("mlapp.serving.decoding.large_json.decode_json", None)
    names = {f"column number {at}": [1] for at in range(12_000)}
    async with serve(*numbers) as client:
        answer = await client.post("/predict", json={"inputs": names})
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 10)
    assert "column 'a' is missing" in answer.json()["detail"]


async def test_a_csv_for_a_feature_loader_is_read_in_pieces_as_if_at_once(serve, monkeypatch):
    app, given = App("raw", target="y"), []
    app.data_reader(lambda: {"a": [1.0, 2.0] * 10, "y": [0, 1] * 10})
    app.model(Sums)

    @app.feature_loader
    def load(inputs) -> pd.DataFrame:
        given.append(inputs)
        return pd.DataFrame({"a": [1.0]})

    rows = [f"{at},{at / 2},{at if at < 90 else 'x'},{at % 2 == 0},{'' if at == 5 else at},0{at}" for at in range(100)]
    body = "\n".join(["whole,part,mixed,truth,missing,code", *rows]).encode()
    async with serve(app) as client:
        for cells in (10**6, 60):
            monkeypatch.setattr(media_types, "CHUNK", cells)
            assert (await send(client, "text/csv", body)).status_code == 200
        whole, joined = given[-2:]
        pd.testing.assert_frame_equal(joined, whole)
        assert list(map(type, joined["mixed"])) == [int] * 90 + [str] * 10
        monkeypatch.setattr(codec, "MAX_VALUES_AT_ONCE", 150)
        assert (await send(client, "text/csv", body)).status_code == 413


async def test_more_values_than_may_be_are_refused_in_every_format(numbers, serve):
    import pyarrow as pa

    rows = np.zeros((200, 2))
    table = pd.DataFrame(rows, columns=["a", "b"])
    tensor = {"name": "inputs", "datatype": "FP64", "shape": [200, 2], "data": rows.ravel().tolist()}
    sink = io.BytesIO()
    np.save(sink, rows)
    infer = "/v2/models/numbers/infer"
    async with serve(*numbers, max_cells=300) as client:
        for media, body, path in (
            ("text/csv", table.to_csv(index=False).encode(), "/predict"),
            ("text/csv", table.to_csv(index=False).encode(), "/invocations"),
            (ARROW, ipc(pa.Table.from_pandas(table)), "/predict"),
            (NPY, sink.getvalue(), "/predict"),
            ("application/json", json.dumps({"inputs": [tensor]}).encode(), infer),
            ("application/json", json.dumps([[0.12345] * 2] * 60_000).encode(), "/predict"),
        ):
            answer = await send(client, media, body, path)
            assert answer.status_code == 413, (media, path, answer.text)
            assert "serve.max_cells" in answer.text


async def test_the_bodies_of_all_requests_have_one_bound(numbers, serve):
    async with serve(*numbers, max_bodies=1000) as client:
        application = client.application

        async def half(free: asyncio.Event):
            yield b" " * 700
            await free.wait()
            yield b"[[1, 2]]"

        free = asyncio.Event()
        first = asyncio.create_task(client.post("/predict", content=half(free)))
        while not application.intake.held:
            await asyncio.sleep(0.001)
        second = await client.post("/predict", content=b" " * 700 + b"[[1, 2]]")
        assert (second.status_code, second.headers["retry-after"]) == (503, "1")
        free.set()
        assert (await first).json()["predictions"] == [3.0]
        assert (await client.post("/predict", content=b" " * 700 + b"[[1, 2]]")).status_code == 200
        assert application.intake.held == 0


async def test_what_a_client_that_left_sent_is_not_decoded():
    """Bodies whose clients are gone would keep all others' bodies from being decoded."""
    budget = Budget(Serve(), 30)
    begun, free = threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        free.wait()
        budget.check()

    left = asyncio.Event()
    decoding = asyncio.create_task(decode_in_thread(read, budget, left.wait))
    await asyncio.to_thread(begun.wait)
    left.set()
    with pytest.raises(ClientDisconnected):
        await decoding
    with pytest.raises(CancelledBudgetError):
        budget.check()
    free.set()


async def test_the_deadline_covers_decoding(numbers, serve):
    body = json.dumps([[1.5, 2.5]] * 200_000)
    async with serve(*numbers) as client:
        answer = await client.post("/predict", content=body, headers={"x-request-timeout": "0.001"})
        assert answer.status_code == 504
        assert (await client.post("/predict", content=b"[[1, 2]]")).status_code == 200
