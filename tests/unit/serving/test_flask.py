"""A model in a Flask site answers as the server does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mlapp import App
from mlapp.config import Serve

flask = pytest.importorskip("flask")


@pytest.mark.anyio
async def test_a_blueprint_answers_as_the_server(numbers: tuple[App, Any], serve: Callable[..., Any]) -> None:
    from mlapp.flask import blueprint

    app, trained = numbers
    site = flask.Flask("site")
    model = blueprint(app, model=trained, settings=Serve())
    site.register_blueprint(model, url_prefix="/m")
    site.register_blueprint(blueprint(app, model=trained, settings=Serve(), name="second"), url_prefix="/second")
    client = site.test_client()
    async with serve(app, trained) as server:
        for body in (b'{"inputs": [[1, 2]]}', b'{"inputs": [{"a": "x", "b": 1}]}', b"{"):
            expected = await server.post("/predict", content=body)
            for place in ("/m", "/second"):
                answer = client.post(f"{place}/predict", data=body, content_type="application/json")
                assert (answer.status_code, answer.data) == (expected.status_code, expected.content)
                assert answer.content_type == expected.headers["content-type"]
    assert client.get("/m/readyz").status_code == 200
    assert client.get("/m/model").json["model"] == "numbers"
    wrong = client.get("/m/predict")
    assert (wrong.status_code, wrong.content_type) == (405, "application/problem+json")
    assert 'handler="/predict"' in client.get("/m/metrics").text
    assert model.predict({"a": 1, "b": 2}) == [3.0]
