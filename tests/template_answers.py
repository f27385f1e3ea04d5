"""The answers of each program that serves a model to the same requests, in one process.

`python -m tests.template_answers FOLDER` writes JSON: for each program, the answers to `POST /predict`; and requests of
the Open Inference Protocol with the server's answers, for another process to compare.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx

from mlapp.project import Project


def list_bodies(rows: list[Any]) -> list[bytes]:
    """Bodies of `POST /predict`: the example, several rows, a missing value, and one that does not fit."""
    wrong = [{"nothing": 1}] if isinstance(rows[0], dict) else [[1, 2]]
    first = dict.fromkeys(rows[0]) if isinstance(rows[0], dict) else [None] * len(rows[0])
    several = [{"inputs": rows}, rows * 3, {"inputs": wrong}, {"inputs": [first]}]
    return [json.dumps(body).encode() for body in several] + [b"{"]


def make_tensors(about: list[dict[str, Any]], rows: list[Any]) -> dict[str, Any]:
    """A request of the Open Inference Protocol for the inputs that the server describes."""
    inputs = []
    for at, tensor in enumerate(about):
        name, width = tensor["name"], tensor["shape"][-1] if len(tensor["shape"]) > 1 else 1
        if isinstance(rows[0], dict):
            values = [row[name] for row in rows]
        else:
            values = [value for row in rows for value in (row if width > 1 else [row[at]])]
        shape = [len(rows), width] if len(tensor["shape"]) > 1 else [len(rows)]
        inputs.append({"name": name, "datatype": tensor["datatype"], "shape": shape, "data": values})
    return {"inputs": inputs}


async def answer_requests(root: Path) -> dict[str, Any]:
    """The answers of all programs to the same bodies, and tensors with the server's answers."""
    os.chdir(root)
    sys.path.insert(0, str(root))
    project = Project.find(root)
    app = project.app
    version = project.store.resolve(app.name, "latest")
    project.store.promote(app.name, version, "production")
    manifest = project.store.manifest(app.name, version)
    rows = manifest.schema.example_inputs(has_feature_loader=manifest.schema.inputs is not None)
    bodies = list_bodies(rows)

    from mlapp.serving import create_asgi

    server = httpx.AsyncClient(transport=httpx.ASGITransport(create_asgi(app, model="production")), base_url="http://m")
    async with server:
        answers = [await server.post("/predict", content=body) for body in bodies]
        answers_by_program = {"server": [(answer.status_code, answer.text) for answer in answers]}
        about = (await server.get(f"/v2/models/{app.name}")).json()
        tensors = make_tensors(about["inputs"], rows)
        infer = await server.post(f"/v2/models/{app.name}/infer", json=tensors)
    answers_by_program.update(embed_model(app, project.settings.app.replace(".py", ":app"), bodies))
    return {
        "app": app.name,
        "programs": answers_by_program,
        "tensors": tensors,
        "infer": [infer.status_code, infer.json()],
    }


def embed_model(app: Any, project_app: str, bodies: list[bytes]) -> dict[str, list[tuple[int, str]]]:
    """The answers of WSGI, Flask, Django and Lambda."""
    import django
    import flask
    from django.conf import settings

    from mlapp.aws_lambda.model_function import ModelFunction
    from mlapp.aws_lambda.settings import LambdaSettings
    from mlapp.embed.host import ModelHost
    from mlapp.flask import blueprint
    from mlapp.wsgi import create_wsgi

    wsgi = httpx.Client(transport=httpx.WSGITransport(create_wsgi(app, model="production")), base_url="http://m")
    site = flask.Flask("site")
    site.register_blueprint(blueprint(app))
    settings.configure(
        SECRET_KEY="of a test", ALLOWED_HOSTS=["*"], ROOT_URLCONF="mlapp.django.urls", INSTALLED_APPS=["mlapp.django"],
        MLAPP={"app": project_app, "model": "production"},
    )  # fmt: skip
    django.setup()
    from django.test import Client

    function = ModelFunction(ModelHost(app, "production"), LambdaSettings())
    event = {"version": "2.0", "rawPath": "/predict", "headers": {}, "requestContext": {"http": {"method": "POST"}}}
    answers_by_program: dict[str, list[tuple[int, str]]] = {"wsgi": [], "flask": [], "django": [], "lambda": []}
    for body in bodies:
        answer = wsgi.post("/predict", content=body)
        answers_by_program["wsgi"].append((answer.status_code, answer.text))
        own = site.test_client().post("/predict", data=body, content_type="application/json")
        answers_by_program["flask"].append((own.status_code, own.text))
        theirs = Client().post("/predict", body, content_type="application/json")
        answers_by_program["django"].append((theirs.status_code, theirs.content.decode()))
        made = json.loads(function.answer_event(json.dumps({**event, "body": body.decode()}).encode(), 30))
        answers_by_program["lambda"].append((made["statusCode"], made["body"]))
    return answers_by_program


if __name__ == "__main__":
    json.dump(asyncio.run(answer_requests(Path(sys.argv[1]).resolve())), sys.stdout)
