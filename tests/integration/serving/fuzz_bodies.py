"""Coverage-guided fuzzing of every body that a client may send: nothing may end in a 500.

    python tests/integration/serving/fuzz_bodies.py CORPUS [-max_total_time=SECONDS] [other options of libFuzzer]

CORPUS is a folder; valid bodies of each kind are put into it first. An input is one byte that says where it goes
(`TARGETS`), then the body. The whole application runs on it, in this process: decoding, the queue, the answer.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["mlapp"]):
    import numpy as np
    import pandas as pd

    from mlapp import App
    from mlapp.config import Serve
    from mlapp.serving import create_asgi, routes
    from mlapp.serving.asgi import load_served_model
    from mlapp.serving.inference.endpoint import Endpoint

INFER = "/v2/models/people/infer"
TARGETS = [
    ("/predict", "application/json"),
    ("/invocations", "application/json"),
    ("/invocations", "text/csv"),
    ("/predict", "text/csv"),
    ("/predict", "application/vnd.apache.arrow.stream"),
    ("/numbers/predict", "application/x-npy"),
    (INFER, "application/json"),
    (INFER, "application/octet-stream"),
    ("/numbers/predict", "application/json"),
    ("/v2/models/numbers/infer", "application/json"),
]
"""That of octets: its body begins with the length of the JSON part in two bytes, which becomes the header's."""
RECORD = {"age": 3, "income": 1.5, "city": "Bern", "vip": True, "note": "x", "day": "2026-01-02"}


class First:
    """Predicts the first column."""

    def fit(self, features: Any, target: Any = None) -> First:
        return self

    def predict(self, features: Any) -> Any:
        return np.asarray(features)[:, 0]


def app_of(name: str, table: pd.DataFrame) -> App:
    app = App(name, target="y")

    @app.data_reader
    def read() -> pd.DataFrame:
        return table.assign(y=[row % 2 for row in range(len(table))])

    app.model(First)
    return app


def people() -> App:
    rows = range(20)
    return app_of(
        "people",
        pd.DataFrame(
            {
                "age": rows,
                "income": [None if row == 5 else row * 1.5 for row in rows],
                "city": pd.Categorical([["Bern", "Rome"][row % 2] for row in rows]),
                "vip": [row % 3 == 0 for row in rows],
                "note": [f"n{row}" for row in rows],
                "day": pd.date_range("2026-01-01", periods=20),
            }
        ),
    )


def numbers() -> App:
    return app_of("numbers", pd.DataFrame({"a": np.arange(20.0), "b": 0.5}))


def seeds() -> list[tuple[int, bytes]]:
    """A valid body, or several, for each target."""
    table = pd.DataFrame([RECORD]).assign(day=pd.to_datetime(["2026-01-02"]))
    rows = [list(RECORD.values())]
    columns = {name: [value] for name, value in RECORD.items()}
    split = {"columns": list(RECORD), "data": rows}
    inputs = {"inputs": [RECORD, RECORD]}, {"inputs": rows}, {"features": columns}, [RECORD]
    invocations = {"dataframe_split": split}, {"dataframe_records": [RECORD]}, {"instances": rows}, {"inputs": columns}
    kinds = {"age": "INT64", "income": "FP64", "city": "BYTES", "vip": "BOOL", "note": "BYTES", "day": "BYTES"}
    tensors = [{"name": name, "shape": [1], "datatype": kind, "data": [RECORD[name]]} for name, kind in kinds.items()]
    raw = {
        "age": struct.pack("<q", 3),
        "income": struct.pack("<d", 1.5),
        "vip": b"\1",
        **{name: struct.pack("<I", len(RECORD[name])) + RECORD[name].encode() for name in ("city", "note", "day")},
    }
    binary = [
        {"name": name, "shape": [1], "datatype": kind, "parameters": {"binary_data_size": len(raw[name])}}
        for name, kind in kinds.items()
    ]
    head = json.dumps({"inputs": binary, "parameters": {"binary_data_output": True}}).encode()
    import pyarrow as pa

    arrow, npy = io.BytesIO(), io.BytesIO()
    content = pa.Table.from_pandas(table, preserve_index=False)
    with pa.ipc.new_stream(arrow, content.schema) as writer:
        writer.write_table(content)
    np.save(npy, np.ones((2, 2)))
    return [
        *((0, json.dumps(body).encode()) for body in inputs),
        *((1, json.dumps(body).encode()) for body in invocations),
        (2, table.to_csv(index=False).encode()),
        (3, table.to_csv(index=False, header=False).encode()),
        (4, arrow.getvalue()),
        (5, npy.getvalue()),
        (6, json.dumps({"inputs": tensors, "id": "1", "outputs": [{"name": "predictions"}]}).encode()),
        (7, struct.pack("<H", len(head)) + head + b"".join(raw[name] for name in kinds)),
        (8, b'{"inputs": [[1.5, 2e3], [0, -1]]}'),
        (8, b'{"inputs": [{"b": 1, "a": 2.5}]}'),
        (9, b'{"inputs": [{"name": "inputs", "shape": [1, 2], "datatype": "FP64", "data": [[1, 2]]}]}'),
    ]


class Client:
    """Sends one body to the application and gives the answer's status."""

    def __init__(self) -> None:
        first, second, settings = people(), numbers(), Serve(access_log=False)
        self.application = create_asgi(first, model=first.train(), settings=settings)
        loaded = load_served_model(second, second.train(), None, settings)
        routes.add_endpoint_routes(
            self.application, Endpoint(second, loaded, settings, self.application.metrics, "/numbers")
        )
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.application.start_models())

    def post(self, target: int, body: bytes) -> int:
        path, media = TARGETS[target]
        headers = [(b"content-type", media.encode())]
        if media == "application/octet-stream" and len(body) >= 2:
            headers.append((b"inference-header-content-length", b"%d" % struct.unpack("<H", body[:2])))
            body = body[2:]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "root_path": ""}
        messages = iter([{"type": "http.request", "body": body}])
        status = 0

        async def receive() -> Any:
            for message in messages:
                return message
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)

        self.loop.run_until_complete(self.application(scope, receive, send))
        return status


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    client = Client()
    for number, (target, body) in enumerate(seeds()):
        assert client.post(target, body) == 200, (TARGETS[target], body)
        (corpus / f"valid-{number}").write_bytes(bytes([target]) + body)

    def attempt(data: bytes) -> None:
        if data and data[0] < len(TARGETS):
            status = client.post(data[0], data[1:])
            assert status in (200, 400, 408, 413, 415, 422), f"{status} for {TARGETS[data[0]]}: {data[1:]!r}"

    atheris.Setup(sys.argv, attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
