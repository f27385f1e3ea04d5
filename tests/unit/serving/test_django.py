"""A model in a Django site answers as the server does, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

django = pytest.importorskip("django")

SETTINGS = """
SECRET_KEY = "of a test"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "orders_urls"
INSTALLED_APPS = ["mlapp.django"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
USE_TZ = True
DATA_UPLOAD_MAX_MEMORY_SIZE = 100
MLAPP = {"app": "orders_app:app", "model": "production", "follow": True}
"""
URLS = """
from django.http import JsonResponse
from django.urls import include, path

import mlapp.django

urlpatterns = [
    path("m/", include("mlapp.django.urls")),
    path("page", lambda request: JsonResponse({"found": mlapp.django.predict({"a": 1, "b": 2})})),
]
"""
APP = """
import numpy as np
import pandas as pd

from mlapp import App

app = App("orders", target="y")


class Sums:
    def fit(self, features, target=None):
        return self

    def predict(self, features):
        return np.asarray(features, dtype=float).sum(axis=1)


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(40.0), "b": 0.5, "y": np.arange(40) % 2})


@app.model
def build() -> Sums:
    return Sums()


@app.saver
def save(model, path) -> None:
    (path / "sums").write_text("")


@app.loader
def load(path):
    return Sums()
"""
MANAGE = """
import os
import sys

os.environ["DJANGO_SETTINGS_MODULE"] = "orders_settings"
from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""
BODIES = [
    b'{"inputs": [[1, 2]]}',
    b'[{"a": 1, "b": 2}, {"a": 3, "b": 4.5}]',
    b'{"inputs": [{"a": "x", "b": 1}]}',
    b'{"inputs": [[1, 2]] , "more": 1}',
    b"{",
    b"",
    b'{"inputs": [%b]}' % b",".join([b"[1, 2]"] * 100),
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Django site in this process, whose app has no version yet."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in {
        "orders_settings.py": SETTINGS,
        "orders_urls.py": URLS,
        "orders_app.py": APP,
        "manage.py": MANAGE,
        "mlapp.yaml": "name: orders\napp: orders_app.py\nserve: {refresh: 0.02}\n",
    }.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.chdir(folder)
        patch.setenv("DJANGO_SETTINGS_MODULE", "orders_settings")
        django.setup()
        yield folder


@pytest.fixture(scope="module")
def app(project: Path) -> Any:
    """The site's app, with a version in production."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)  # each test returns to the folder of the run
        app = importlib.import_module("orders_app").app
        app.train()
        app.store().promote("orders", app.save().version, "production")
    return app


def check() -> list[tuple[str, str, str]]:
    from django.core.checks import run_checks

    return [(message.id, message.msg, message.hint) for message in run_checks()]


def test_the_system_check_says_what_is_wrong(project: Path) -> None:
    from django.core.management import CommandError, call_command
    from django.test import override_settings

    [(code, text, hint)] = check()
    assert (code, "production" in text) == ("mlapp.E003", True)
    with pytest.raises(CommandError, match="mlapp.E003"):
        call_command("check")
    for setting, code, text in [
        ({"app": "orders_app:ap"}, "mlapp.E002", "has no App 'ap'. Did you mean 'app'?"),
        ({"app": "nowhere:app"}, "mlapp.E002", "there is no module 'nowhere'"),
        ({"app": "orders_app"}, "mlapp.E001", "MLAPP.app"),
        ({"app": "orders_app:app", "modle": "3"}, "mlapp.E001", "Did you mean 'model'?"),
        ({"app": "orders_app:app", "model": "3", "follow": True}, "mlapp.E001", "fixed version"),
        ("orders_app:app", "mlapp.E001", "no dictionary MLAPP"),
    ]:
        with override_settings(MLAPP=setting):
            [(found_id, message, hint)] = check()
            assert (found_id, text in message) == (code, True), message
            assert hint


def test_a_site_without_a_model_answers_503(project: Path) -> None:
    from django.core.wsgi import get_wsgi_application

    with httpx.Client(transport=httpx.WSGITransport(get_wsgi_application()), base_url="http://site") as client:
        answer = client.post("/m/predict", json=[[1, 2]])
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert client.get("/m/livez").status_code == 200


@pytest.mark.anyio
async def test_every_body_gets_the_servers_answer(app: Any, serve: Callable[..., Any]) -> None:
    from django.core.asgi import get_asgi_application
    from django.core.wsgi import get_wsgi_application

    assert check() == []
    asgi = httpx.AsyncClient(transport=httpx.ASGITransport(get_asgi_application()), base_url="http://site")
    with httpx.Client(transport=httpx.WSGITransport(get_wsgi_application()), base_url="http://site") as wsgi:
        async with serve(app, "production", max_body=10**6) as server, asgi:
            for body in BODIES:
                expected = await server.post("/predict", content=body)
                found = [wsgi.post("/m/predict", content=body), await asgi.post("/m/predict", content=body)]
                for answer in found:
                    assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
                    assert answer.headers["content-type"] == expected.headers["content-type"]
            for path in ("/model", "/models", "/readyz", "/livez"):
                expected = await server.get(path)
                assert wsgi.get(f"/m{path}").content == (await asgi.get(f"/m{path}")).content == expected.content
        assert wsgi.get("/m/predict").status_code == 405
        assert wsgi.get("/page").json() == {"found": [3.0]}
        assert 'handler="/predict"' in wsgi.get("/m/metrics").text


TEMPLATES = Path(__file__).parents[3] / "templates"
FLOWER = b'{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": %b}'
ASKED: dict[str, list[bytes]] = {
    "basic": [
        b'{"inputs": [[%b]]}' % b",".join(b"%d" % (at % 17) for at in range(64)),
        b"[[%b]]" % b",".join(b"%d.5" % (at % 15) for at in range(64)),
        b'{"inputs": [[1, 2]]}',
    ],
    "aws-lambda": [
        b'{"inputs": [%b, %b]}' % (FLOWER % b"0.2", FLOWER % b"null"),
        b"[%b]" % (FLOWER % b"1.7e0"),
        b'{"inputs": [%b]}' % (FLOWER % b'"wide"'),
    ],
}


@pytest.mark.anyio
@pytest.mark.parametrize("template", ASKED)
async def test_a_template_answers_alike_in_every_program(
    project: Path, serve: Callable[..., Any], template: str
) -> None:
    """The server, WSGI, Flask, Django and Lambda, bit by bit. MLServer has a test of its own."""
    flask = pytest.importorskip("flask")
    from django.test import Client, override_settings

    from mlapp.aws_lambda.model_function import ModelFunction
    from mlapp.aws_lambda.settings import LambdaSettings
    from mlapp.embed.host import ModelHost
    from mlapp.flask import blueprint
    from mlapp.wsgi import create_wsgi

    module = template.replace("-", "_")
    source = (TEMPLATES / template / "{{ cookiecutter.name }}" / "app.py").read_text()
    (project / f"{module}.py").write_text(source.replace("{{ cookiecutter.name }}", module))
    app = importlib.import_module(module).app
    app.train(**({"limit": 200} if template == "basic" else {}))
    app.store().promote(app.name, app.save().version, "production")
    site = flask.Flask("site")
    site.register_blueprint(blueprint(app))
    function = ModelFunction(ModelHost(app, "production"), LambdaSettings())
    wsgi = httpx.Client(transport=httpx.WSGITransport(create_wsgi(app, model="production")), base_url="http://site")
    event = {"version": "2.0", "rawPath": "/predict", "headers": {}, "requestContext": {"http": {"method": "POST"}}}
    async with serve(app, "production") as server:
        for body in ASKED[template]:
            expected = await server.post("/predict", content=body)
            found = [(answer.status_code, answer.content) for answer in [wsgi.post("/predict", content=body)]]
            in_flask = site.test_client().post("/predict", data=body, content_type="application/json")
            found.append((in_flask.status_code, in_flask.data))
            with override_settings(MLAPP={"app": f"{module}:app"}):
                in_django = Client().post("/m/predict", body, content_type="application/json")
                found.append((in_django.status_code, in_django.content))
            answer = json.loads(function.answer_event(json.dumps({**event, "body": body.decode()}).encode(), 30))
            found.append((answer["statusCode"], answer["body"].encode()))
            assert found == [(expected.status_code, expected.content)] * 4


def test_a_loaded_model_is_called_from_threads_and_after_a_fork(app: Any) -> None:
    predictor = app.load("production")
    rows = list(range(200))

    def predict(row: int) -> float:
        return float(predictor.predict({"a": row, "b": 0.5})[0])

    expected = [row + 0.5 for row in rows]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(predict, rows)) == expected
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, b"same" if [predict(row) for row in rows] == expected else b"other")
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"same"


def test_urls_have_names(app: Any) -> None:
    from django.urls import reverse

    assert reverse("mlapp:predict") == "/m/predict"


def test_a_moved_alias_is_followed(app: Any) -> None:
    from django.test import Client

    client = Client()
    assert client.post("/m/predict", b"[[1, 2]]", content_type="application/json").status_code == 200
    version = app.save().version
    app.store().promote("orders", version, "production")
    for _ in range(4000):
        if client.get("/m/model").json()["version"] == str(version):
            break
        asyncio.run(asyncio.sleep(0.01))
    assert client.post("/m/predict", b"[[1, 2]]", content_type="application/json").json()["version"] == str(version)


def test_a_predictor_that_yields_streams(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.test import AsyncClient, Client, override_settings

    module = importlib.import_module("orders_app")
    app = type(module.app)("streaming", target="y")
    app.data_reader(module.read)
    app.model(module.build)
    app.saver(module.save)
    app.loader(module.load)

    @app.predictor
    def predict(model, features) -> Iterator[float]:
        yield from model.predict(features).tolist()

    app.train()
    app.save()
    monkeypatch.setattr(module, "streaming", app, raising=False)
    with override_settings(MLAPP={"app": "orders_app:streaming", "model": "latest"}):
        answer = Client().post("/m/predict", b"[[1, 2]]", content_type="application/json")
        assert answer["content-type"] == "text/event-stream"
        expected = b"data: 3.0\n\nevent: end\ndata: {}\n\n"
        assert b"".join(answer.streaming_content) == expected

        async def collect() -> bytes:
            answer = await AsyncClient().post("/m/predict", b"[[1, 2]]", content_type="application/json")
            return b"".join([part async for part in answer.streaming_content])

        assert asyncio.run(collect()) == expected


def test_manage_py_runs_mlapps_commands(project: Path, app: Any) -> None:
    from django.core.management import CommandError, call_command

    done = subprocess.run(
        [sys.executable, "manage.py", "mlapp", "models", "list", "--json"], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '"production"' in done.stdout
    with pytest.raises(CommandError) as wrong:
        call_command("mlapp", "models", "show", "99")
    assert wrong.value.returncode == 2
