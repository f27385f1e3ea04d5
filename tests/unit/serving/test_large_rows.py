"""Bodies of 256 kB to 1 MB: rows of numbers are decoded in the event loop, all others in a thread."""

import json

import numpy as np
import pytest

from benchmarks.instructions import COLUMNS, make_app
from mlapp.schema.number_rows import MAX_CELLS_AT_ONCE
from mlapp.serving.decoding.large_json import LARGE
from mlapp.serving.inference import body_decoding

pytestmark = pytest.mark.anyio
ROWS = 1500


@pytest.fixture(scope="module")
def sums():
    app = make_app("rows")
    return app, app.train()


@pytest.fixture
def cells():
    return np.round(np.random.default_rng(7).random((ROWS, COLUMNS)), 3)


@pytest.fixture
def threads(monkeypatch):
    """The bodies that were decoded in a thread."""
    seen = []
    decode = body_decoding.decode_in_thread

    async def note(read, *arguments):
        seen.append(read)
        return await decode(read, *arguments)

    monkeypatch.setattr(body_decoding, "decode_in_thread", note)
    return seen


async def test_rows_of_numbers_need_no_thread(sums, serve, cells, threads):
    body = json.dumps({"inputs": cells.tolist()}).encode()
    assert len(body) > LARGE
    async with serve(*sums) as client:
        answer = await client.post("/predict", content=body)
    assert answer.json()["predictions"] == pytest.approx(cells.sum(axis=1).tolist())
    assert not threads


@pytest.mark.parametrize(("row", "cell"), [(3, "x"), (ROWS - 1, [1.0])])
async def test_a_wrong_row_is_named_as_in_a_small_body(sums, serve, cells, threads, row, cell):
    rows = cells.tolist()
    rows[row][5] = cell
    async with serve(*sums) as client:
        answer = await client.post("/predict", json={"inputs": rows})
    assert answer.status_code == 422
    assert f"row {row}" in answer.text
    assert len(threads) == 1


async def test_very_many_short_numbers_are_decoded_in_a_thread(sums, serve, threads):
    rows = [[1] * COLUMNS] * (MAX_CELLS_AT_ONCE // COLUMNS + 1)
    async with serve(*sums) as client:
        answer = await client.post("/predict", content=json.dumps(rows))
    assert answer.json()["predictions"] == [COLUMNS] * len(rows)
    assert len(threads) == 1


async def test_more_values_than_may_be_are_refused(sums, serve, cells):
    async with serve(*sums, max_cells=ROWS * COLUMNS - 1) as client:
        answer = await client.post("/predict", json={"inputs": cells.tolist()})
    assert answer.status_code == 413
    assert "serve.max_cells" in answer.text
