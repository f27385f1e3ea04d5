"""Routes of the user's own beside mlapp's, named by `serve.api`."""

from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.xdist_group("serving")
ROUTES = """
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import app

started = []


@asynccontextmanager
async def lifespan(api):
    started.append(True)
    yield


api = FastAPI(lifespan=lifespan)


@api.get("/about/{topic}")
def about(topic: str) -> dict:
    return {"topic": topic, "app": app.name, "started": started}


@api.post("/predict")
def mine() -> str:
    return "never reached"
"""


def test_the_users_routes_stand_beside_those_of_mlapp(serve, mlapp, new_project) -> None:
    project = new_project()
    (project / "routes.py").write_text(ROUTES)
    (project / "mlapp.yaml").write_text("serve:\n  api: routes.py:api\n")
    with serve(project, MLAPP_SERVE__API_KEYS="secret") as server:
        with httpx.Client(base_url=server.url, headers={"X-API-Key": "secret"}) as client:
            assert client.get("/about/cats").json() == {"topic": "cats", "app": "sums", "started": [True]}
            answer = client.post("/predict", json={"inputs": [{"a": 1, "b": 2}]})
            assert answer.json()["predictions"] == [3.0]
            assert client.get("/openapi.json").json()["paths"].keys() >= {"/about/{topic}", "/predict"}
            assert client.get("/nothing").status_code == 404
            assert 'handler="/about/{topic}"' in client.get("/metrics").text
        assert httpx.get(f"{server.url}/about/cats").status_code == 401
        assert server.stop() == 0

    (project / "mlapp.yaml").write_text("serve:\n  api: routes.py:apis\n")
    ran = mlapp(project, "serve", "--port", "0")
    assert ran.returncode == 1
    assert "routes.py has no 'apis'. Did you mean 'api'?" in ran.stderr
