"""The OpenAPI document of each kind of model: it is complete, and its examples are valid requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from mlapp import App

pytestmark = pytest.mark.anyio


def array_app() -> App:
    """Rows of three small integers; predicts the first."""
    app = App("pixels")
    app.data_reader(lambda: np.arange(60, dtype="int8").reshape(20, 3))
    app.data_loader(lambda data: data)

    @app.data_splitter
    def split(data, test_size=0.2, shuffle=True, random_state=1):
        return {"train": data}

    app.data_parser(lambda data: (data, data[:, 0]))

    class First:
        def fit(self, features, target=None):
            return self

        def predict(self, features):
            return features[:, 0]

    app.model(First)
    app.evaluator(lambda model, features, target: 1.0)
    return app


@pytest.fixture(scope="session")
def pixels() -> tuple[App, Any]:
    app = array_app()
    return app, app.train()


def validator(schema: dict[str, Any], document: dict[str, Any]) -> Draft202012Validator:
    """Of a schema within the document."""
    return Draft202012Validator({**schema, "components": document["components"]})


def bodies(document: dict[str, Any]) -> Iterator[tuple[str, str, Any, Any]]:
    """Each example of a request: its path, its media type, the schema of its body, and itself."""
    for path, methods in document["paths"].items():
        for media, content in methods.get("post", {}).get("requestBody", {}).get("content", {}).items():
            examples = [named["value"] for named in content.get("examples", {}).values()]
            for example in [*examples, *([content["example"]] if "example" in content else [])]:
                yield path, media, content["schema"], example


@pytest.mark.parametrize("kind", ["numbers", "people", "pixels"])
async def test_every_example_fits_its_schema_and_is_answered_as_described(kind, serve, request) -> None:
    app, trained = request.getfixturevalue(kind)
    async with serve(app, trained) as client:
        document = (await client.get("/openapi.json")).json()
        examples = list(bodies(document))
        paths = {"/predict", "/invocations", f"/v1/models/{kind}:predict", f"/v2/models/{kind}/infer", "/feedback"}
        assert {path for path, *_ in examples} == paths
        for path, media, schema, example in examples:
            validator(schema, document).validate(example)
            sent = {"content": example} if media == "text/csv" else {"json": example}
            answer = await client.post(path, **sent, headers={"content-type": media})
            if path == "/feedback":  # a model that is not stored has no place for truths
                assert answer.status_code == 503, answer.text
                continue
            assert answer.status_code == 200, (path, media, answer.text)
            output = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
            validator(output, document).validate(answer.json())


@pytest.mark.parametrize(
    ("body", "is_right"),
    [
        ({"inputs": [{"a": 1, "b": 2}]}, True),
        ({"inputs": [[1, 2]]}, True),
        ({"inputs": {"a": [1, 2], "b": [3, 4]}}, True),
        ({"inputs": {"a": 1, "b": 2}}, True),
        ({"features": [[1, 2]]}, True),
        ([{"a": 1, "b": 2}], True),
        ([[1, 2]], True),
        ({"a": 1, "b": 2}, False),
        ({"inputs": [[1, 2]], "features": [[1, 2]]}, False),
        ({"inputs": [[1, "2"]]}, False),
        ({"inputs": []}, False),
    ],
)
async def test_the_schema_takes_what_the_server_takes(numbers, serve, body, is_right: bool) -> None:
    async with serve(*numbers) as client:
        document = (await client.get("/openapi.json")).json()
        schema = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert validator(schema, document).is_valid(body) is is_right
        assert (await client.post("/predict", json=body)).is_success is is_right


async def test_a_model_that_streams_is_described_without_the_protocols_that_do_not(serve) -> None:
    app = App("words", target="y")
    app.data_reader(lambda: [{"a": 1.0, "y": 0}, {"a": 2.0, "y": 1}] * 5)

    class Words:
        def fit(self, features, target=None):
            return self

    app.model(Words)
    app.evaluator(lambda model, features, target: 1.0)

    @app.predictor
    def predict(model, features):
        yield "a word"

    async with serve(app) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert "text/event-stream" in paths["/predict"]["post"]["responses"]["200"]["content"]
        assert "/v2/models/words" in paths
        assert not {"/invocations", "/v2/models/words/infer"} & paths.keys()


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/v2/models/numbers/infer", 405, "POST"),
        ("PUT", "/v2/models/numbers", 405, "GET, HEAD"),
        ("POST", "/v2/models/numbers/ready", 405, "GET, HEAD"),
        ("GET", "/v2/models/numbers/versions", 404, None),
        ("GET", "/v2/models/numbers/other/words", 404, None),
    ],
)
async def test_the_inference_protocol_has_no_path_beside_those_described(
    numbers, serve, method: str, path: str, status: int, allowed: str | None
) -> None:
    async with serve(*numbers) as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers.get("allow")) == (status, allowed)
        assert answer.json().keys() == {"error"}


async def test_no_number_is_cut_to_the_size_of_the_models_integers(pixels, serve) -> None:
    async with serve(*pixels) as client:
        assert (await client.post("/predict", json={"inputs": [[1, 2.0, 3]]})).json()["predictions"] == [1]
        for cell in (300, 1.5, True, "1", None):
            answer = await client.post("/predict", json={"inputs": [[cell, 2, 3]]})
            assert answer.status_code == 422, (cell, answer.text)


async def test_a_split_with_a_column_twice_is_refused(numbers, serve) -> None:
    async with serve(*numbers) as client:
        body = {"dataframe_split": {"columns": ["a", "b", "a"], "data": [[1, 2, 3]]}}
        answer = await client.post("/invocations", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (
            422,
            "dataframe_split has a column twice in its 'columns'.",
        )
