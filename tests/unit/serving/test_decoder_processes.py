"""The largest bodies are decoded in separate processes: same answers, within limits, none left behind."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
from functools import partial

import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.config import Serve
from mlapp.errors import InputError
from mlapp.prediction import make_predictor
from mlapp.serving.decoding import processes
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.decoding.threads import decode_in_thread
from mlapp.serving.inference import body_decoding
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.http import ClientDisconnected
from mlapp.serving.web.problems import HttpError
from tests.unit.serving.conftest import Sums
from tests.unit.serving.decoder_tasks import crash, decode, sleep_long, take_memory

pa = pytest.importorskip("pyarrow", reason="the core install has no Arrow")
pytestmark = pytest.mark.anyio
RECORDS = [
    {"age": row, "income": None if row % 7 == 3 else row / 2, "city": ["Bern", "Rome"][row % 2], "vip": row % 3 == 0,
     "note": f'n"{row}'}
    for row in range(300)
]  # fmt: skip
EXPECTED = [f"{row['city']} {row['age']} {row['vip']} {float(row['income'] or 'nan')}" for row in RECORDS]
EXPECTED[0] = "Bern 0 True 0.0"
TABLE = pd.DataFrame(RECORDS)


@pytest.fixture(autouse=True)
def any_body_is_huge(monkeypatch):
    monkeypatch.setattr(processes, "HUGE", 1)
    monkeypatch.setattr(body_decoding, "LARGE", 1)
    monkeypatch.setattr("mlapp.serving.inference.request_features.LARGE", 1)
    monkeypatch.setattr("mlapp.serving.inference.request_features.SMALL", 1)
    monkeypatch.setattr(body_decoding.BodyDecoding.decode_features, "__defaults__", (None, (), 1))


@pytest.fixture(scope="module")
def codec(numbers) -> Codec:
    return Codec(make_predictor(numbers[1]))


def arrow() -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pandas(TABLE)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def tensors() -> dict:
    kinds = {"age": "INT64", "income": "FP64", "city": "BYTES", "vip": "BOOL", "note": "BYTES"}
    data = {name: [row[name] for row in RECORDS if row["income"] is not None] for name in kinds}
    shape = [len(data["age"])]
    return {
        "id": "7",
        "inputs": [{"name": name, "datatype": kinds[name], "shape": shape, "data": data[name]} for name in kinds],
    }


@pytest.mark.parametrize(
    ("path", "media", "body"),
    [
        ("/predict", "application/json", json.dumps(RECORDS).encode()),
        ("/predict", "application/json", json.dumps({"inputs": TABLE.to_dict("list")}).replace("NaN", "null").encode()),
        ("/predict", "text/csv", TABLE.to_csv(index=False).encode()),
        ("/predict", "application/vnd.apache.arrow.stream", arrow()),
        ("/invocations", "application/json", json.dumps({"dataframe_records": RECORDS}).encode()),
    ],
    ids=["records", "columns", "csv", "arrow", "mlflow"],
)
async def test_answers_are_those_of_the_server_itself(people, serve, path, media, body):
    async with serve(*people) as client:
        answer = await client.post(path, content=body, headers={"content-type": media})
    assert answer.json()["predictions"] == EXPECTED, answer.text[:500]


async def test_tensors_are_decoded_there_too(people, serve):
    async with serve(*people) as client:
        answer = await client.post("/v2/models/people/infer", json=tensors())
    rows = [text for text, row in zip(EXPECTED, RECORDS, strict=True) if row["income"] is not None]
    assert (answer.json()["id"], answer.json()["outputs"][0]["data"]) == ("7", rows)


async def test_business_keys_and_refusals_are_returned(numbers, serve):
    async with serve(*numbers) as client:
        seen = []
        client.application.endpoints[0].current.codec.on_refusal = seen.append
        good = await client.post("/predict", json={"inputs": [[1, 2]], "keys": {"order": "a"}})
        assert good.json()["predictions"] == [3.0]
        refused = await client.post("/predict", json=[[1, 2], [1, "x"]])
        assert (refused.status_code, refused.json()["errors"][0]["row"]) == (422, 1)
        assert [type(error) for error in seen] == [InputError]
        assert (await client.post("/predict", content=b"[[1, 2]")).status_code == 400


async def test_a_large_request_is_predicted_in_slices(numbers, serve, monkeypatch):
    from mlapp.serving.inference import batch_predict

    monkeypatch.setattr(batch_predict, "SLICE", 70)
    rows = np.arange(400.0).reshape(200, 2)
    async with serve(*numbers) as client:
        for path, key in (("/predict", "inputs"), ("/invocations", "instances")):
            answer = await client.post(path, json={key: rows.tolist()})
            assert answer.json()["predictions"] == rows.sum(axis=1).tolist()
        tensor = {"name": "inputs", "datatype": "FP64", "shape": [200, 2], "data": rows.ravel().tolist()}
        answer = await client.post("/v2/models/numbers/infer", json={"inputs": [tensor]})
        assert answer.json()["outputs"][0]["data"] == rows.sum(axis=1).tolist()


async def test_a_feature_loader_gets_what_is_decoded_there_and_runs_in_the_server(serve):
    app, given = App("raw", target="y"), []
    app.data_reader(lambda: {"a": [1.0, 2.0] * 10, "y": [0, 1] * 10})
    app.model(Sums)

    @app.feature_loader
    def load(inputs) -> pd.DataFrame:
        given.append((os.getpid(), inputs))
        return pd.DataFrame({"a": [1.0, 2.0]})

    tables = {"text/csv": TABLE.to_csv(index=False).encode(), "application/vnd.apache.arrow.stream": arrow()}
    async with serve(app) as client:
        for inputs in (RECORDS, [], {"a": "b"}, "text", None, 3, [[1, [2.5, "é"]], None]):
            answer = await client.post("/predict", json={"inputs": inputs, "keys": [{"id": 1}, {"id": 2}]})
            assert (answer.json()["predictions"], given.pop()) == ([1.0, 2.0], (os.getpid(), inputs))
        for media, body in tables.items():
            await client.post("/predict", content=body, headers={"content-type": media})
            assert given.pop()[1].to_csv(index=False) == TABLE.to_csv(index=False)
        wrong = await client.post("/predict", json={"inputs": [1], "keys": [{"id": 1}]})
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "keys")
        assert (await client.post("/predict", content=b"[1, 2")).status_code == 400


async def test_an_async_predictor_gets_a_large_request_in_slices(serve, monkeypatch):
    from mlapp.serving.inference import batch_predict

    monkeypatch.setattr(batch_predict, "SLICE", 70)
    app, rows = App("slow", target="y"), []
    app.data_reader(lambda: {"a": [1.0, 2.0] * 10, "y": [0, 1] * 10})
    app.model(Sums)

    @app.predictor
    async def predict(model, features: pd.DataFrame) -> list[float]:
        rows.append(len(features))
        return model.predict(features).tolist()

    async with serve(app) as client:
        rows.clear()
        answer = await client.post("/predict", json=[[row] for row in range(200)])
    assert (answer.json()["predictions"], rows) == (list(map(float, range(200))), [70, 70, 60])


@pytest.fixture
def decoders(monkeypatch) -> list[processes._Decoder]:
    """All decoders of the test, none of which was there before."""
    started = []

    class Decoder(processes._Decoder):
        def __init__(self) -> None:
            super().__init__()
            started.append(self)

    monkeypatch.setattr(processes, "_Decoder", Decoder)
    monkeypatch.setattr(processes._pool, "_idle", [])
    return started


async def test_a_decoder_ends_with_the_time_of_its_request(codec, decoders, tmp_path):
    budget = Budget(Serve(), 0.5)
    body = bytes(tmp_path / "begun")
    with pytest.raises(HttpError) as failed:
        await decode_in_thread(partial(processes.decode_in_process, codec, sleep_long, body, budget), budget)
    assert failed.value.status == 504
    await wait_for_end(decoders)


async def test_a_decoder_ends_when_its_client_leaves(codec, decoders, tmp_path):
    budget, left, begun = Budget(Serve(), 250), asyncio.Event(), tmp_path / "begun"
    call = partial(processes.decode_in_process, codec, sleep_long, bytes(begun), budget)
    decoding = asyncio.create_task(decode_in_thread(call, budget, left.wait))
    while not begun.exists():
        await asyncio.sleep(0.01)
    left.set()
    with pytest.raises(ClientDisconnected):
        await decoding
    await wait_for_end(decoders)


async def wait_for_end(decoders) -> None:
    """Wait until the only decoder has ended. It would run forever."""
    [decoder] = decoders
    while decoder.process.poll() is None:
        await asyncio.sleep(0.01)


async def test_what_ends_a_decoder_does_not_end_the_server(codec, decoders, monkeypatch):
    with pytest.raises(HttpError) as failed:
        processes.decode_in_process(codec, crash, b"[]", Budget(Serve(), 250))
    assert failed.value.status == 400

    # The next one was idle for long, and ends as the next body comes: another one decodes that body.
    monkeypatch.setattr(processes, "START", f"{processes.START}\nimport time; time.sleep(3)  # beside load")
    part = processes.decode_in_process(codec, decode, b"[[1, 2]]", Budget(Serve(), 250))
    assert np.asarray(codec.combine_parts([part])).tolist() == [[1.0, 2.0]]
    monkeypatch.setattr(processes._Decoder, "is_alive", True)
    decoders[-1].socket.shutdown(socket.SHUT_WR)
    with pytest.raises(HttpError) as failed:
        processes.decode_in_process(codec, take_memory, b"[]", Budget(Serve(), 250))
    assert failed.value.status == 413
    assert len(decoders) == 3
