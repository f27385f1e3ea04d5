"""Five hundred damaged binary bodies: each is answered with its client's fault, and none ends the process."""

from __future__ import annotations

import io
import json
import random
import struct

import numpy as np
import pytest

from mlapp.config import Serve
from mlapp.errors import InputError, Problem
from mlapp.prediction import make_predictor
from mlapp.serving.decoding.codec import Codec
from mlapp.serving.protocols import grpc
from mlapp.serving.protocols.messages import find_message_class
from mlapp.serving.web.budget import Budget
from mlapp.serving.web.problems import HttpError

pytestmark = pytest.mark.anyio
SEEDS = 125
ROWS = np.arange(40.0).reshape(20, 2)


def npy() -> bytes:
    sink = io.BytesIO()
    np.save(sink, ROWS)
    return sink.getvalue()


def arrow() -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    texts = pa.array(["x", "y"] * 10).dictionary_encode()
    table = pa.table({"a": ROWS[:, 0], "b": ROWS[:, 1], "texts": texts})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def tensors() -> tuple[bytes, int]:
    about = {"name": "inputs", "datatype": "FP64", "shape": [20, 2], "parameters": {"binary_data_size": ROWS.nbytes}}
    head = json.dumps({"inputs": [about], "parameters": {"binary_data_output": True}}).encode()
    return head + ROWS.tobytes(), len(head)


def message() -> bytes:
    request = find_message_class("ModelInferRequest")(model_name="numbers", id="1")
    given = request.inputs.add(name="inputs", datatype="FP64", shape=[20, 2])
    given.contents.fp64_contents.extend(ROWS.ravel())
    words = request.inputs.add(name="words", datatype="BYTES", shape=[1])
    words.contents.bytes_contents.append(b"x")
    return request.SerializeToString()


def damage(body: bytes, seed: int) -> bytes:
    """The body with a few bytes changed, cut out, doubled, or replaced by those that lengths are made of."""
    choose, mutated_body = random.Random(seed), bytearray(body)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(mutated_body) + 1)
        size = choose.choice((1, 2, 4, 8, 64))
        kind = choose.randrange(4)
        if kind == 0:
            mutated_body[at : at + size] = choose.randbytes(size)
        elif kind == 1:
            mutated_body[at : at + size] = b""
        elif kind == 2:
            mutated_body[at:at] = mutated_body[at : at + size]
        else:
            edge = choose.choice((0, -1, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), 10**9))
            mutated_body[at : at + 8] = struct.pack("<q", edge) if edge < 2**63 else b"\xff" * 8
    return bytes(mutated_body)


async def test_no_damaged_body_is_the_servers_fault(numbers, serve) -> None:
    binary, split = tensors()
    kinds = [
        ("/predict", {"content-type": "application/x-npy"}, npy()),
        ("/predict", {"content-type": "application/vnd.apache.arrow.stream"}, arrow()),
        ("/v2/models/numbers/infer", {"inference-header-content-length": str(split)}, binary),
    ]
    async with serve(*numbers) as client:
        for path, headers, body in kinds:
            seen = set()
            for seed in range(SEEDS):
                answer = await client.post(path, content=damage(body, seed), headers=headers)
                assert answer.status_code in (200, 400, 413, 422), (path, seed, answer.text)
                seen.add(answer.status_code)
            assert len(seen) > 1, path
        assert (await client.post("/predict", content=b"[[1, 2]]")).json()["predictions"] == [3.0]


def test_no_damaged_message_is_the_servers_fault(numbers) -> None:
    codec = Codec(make_predictor(numbers[1]))
    refused = 0
    for seed in range(SEEDS):
        try:
            grpc._decode_grpc_request(codec, damage(message(), seed), Budget(Serve(), 30))
        except (HttpError, InputError):
            refused += 1
    assert refused


async def test_a_problem_names_no_address_in_the_servers_memory(numbers, serve) -> None:
    """NumPy's message for a header that is no literal contains the representation of an object."""
    body = npy().replace(b"False", b"Fal_e")
    async with serve(*numbers) as client:
        answer = await client.post("/predict", content=body, headers={"content-type": "application/x-npy"})
    assert answer.status_code == 400
    assert "ast.Name object>" in answer.json()["detail"]
    assert "0x" not in answer.text


def test_a_problem_of_a_row_names_no_address() -> None:
    error = HttpError(422, f"row 0 is {object()!r}", [Problem(f"row 0 is {object()!r}", row=0)])
    assert b"0x" not in error.problem_body()


async def test_a_problem_repeats_little_of_a_damaged_body(numbers, serve) -> None:
    text = b"['" + b"x" * 9000 + b"']"
    body = npy()[:8] + struct.pack("<H", len(text)) + text
    async with serve(*numbers) as client:
        answer = await client.post("/predict", content=body, headers={"content-type": "application/x-npy"})
    assert answer.status_code == 400
    assert len(answer.content) < 1000
