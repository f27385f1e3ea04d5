"""KServe's v1 protocol, and Vertex AI's paths: `{"instances": …}` to `:predict` is answered as /predict answers."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio

ROWS = [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}]


async def test_instances_are_predicted_as_predict_does(numbers, serve):
    async with serve(*numbers) as client:
        plain = (await client.post("/predict", json={"inputs": ROWS})).json()
        answer = await client.post("/v1/models/numbers:predict", json={"instances": ROWS})

        assert answer.json() == {"predictions": plain["predictions"]}
        assert (await client.get("/v1/models")).json() == {"models": ["numbers"]}
        assert (await client.get("/v1/models/numbers")).json() == {"name": "numbers", "ready": True}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        (
            "POST",
            "/v1/models/digits:predict",
            {"instances": ROWS},
            404,
            "There is no model 'digits'; this server has numbers.",
        ),
        ("POST", "/v1/models/numbers:explain", {"instances": ROWS}, 404, "There is no /v1/models/numbers:explain."),
        ("GET", "/v1/models/numbers:predict", None, 405, "takes POST"),
        ("POST", "/v1/models/numbers:predict", {"rows": ROWS}, 422, "it has none"),
        ("POST", "/v1/models/numbers:predict", {"instances": ROWS, "parameters": {"k": 1}}, 422, "takes none"),
    ],
)
async def test_what_is_wrong_is_named(numbers, serve, method, path, body, status, words):
    async with serve(*numbers) as client:
        answer = await client.request(method, path, json=body)

        assert answer.status_code == status
        assert words in answer.json()["detail"]


async def test_vertex_ai_names_its_own_paths(numbers, serve, monkeypatch):
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/7/deployedModels/3:predict")
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/v1/endpoints/7/deployedModels/3")
    async with serve(*numbers) as client:
        answer = await client.post("/v1/endpoints/7/deployedModels/3:predict", json={"instances": ROWS})

        assert len(answer.json()["predictions"]) == 2
        assert (await client.get("/v1/endpoints/7/deployedModels/3")).status_code == 200
