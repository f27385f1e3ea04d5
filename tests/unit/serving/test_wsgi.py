"""A model in a WSGI application answers as the server does, byte for byte."""

from __future__ import annotations

import gzip
import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import current_thread
from typing import Any
from wsgiref.validate import validator

import httpx
import numpy as np
import pandas as pd
import pytest

from mlapp import App
from mlapp.config import Monitor, Serve, Settings
from mlapp.errors import UsageError
from mlapp.monitoring.database import query_monitoring_database
from mlapp.monitoring.history import list_history_windows, read_history_counts
from mlapp.monitoring.place import open_place
from mlapp.store import open_store
from mlapp.wsgi import create_wsgi

JSON = {"content-type": "application/json"}


def client_of(application: Any, **options: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.WSGITransport(application, **options), base_url="http://test")


@pytest.fixture
def client(people: tuple[App, Any]) -> Iterator[httpx.Client]:
    app, trained = people
    with client_of(create_wsgi(app, model=trained, settings=Serve(max_body=100_000))) as client:
        yield client


@pytest.fixture
def stored_app(numbers: tuple[App, Any], tmp_path: Any) -> tuple[App, Any, Any]:
    """An app whose model can be saved, the model, and an empty store."""
    app = App("numbers", target="y")
    app.data_reader(numbers[0].stage("data_reader").function)
    app.model(numbers[0].stage("model").function)

    @app.saver
    def save(model, path) -> None:
        (path / "sums").write_text("")

    @app.loader
    def load(path) -> Any:
        return numbers[1].estimator

    return app, app.train(), open_store(".", tmp_path)


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


PERSON = b'{"age": 3, "income": 1.5, "city": "Bern", "vip": true, "note": "n"}'
BODIES: list[tuple[bytes, dict[str, str]]] = [
    (b'{"inputs": [%b]}' % PERSON, JSON),
    (b'{"inputs": [%b]}' % PERSON, {}),
    (b"[%b, %b]" % (PERSON, PERSON), JSON),
    (b'{"features": [%b]}' % PERSON, JSON),
    (b'{"inputs": {"age": [3], "income": [null], "city": ["Rome"], "vip": [false], "note": ["x"]}}', JSON),
    (b'{"inputs": [[3, 1.5, "Bern", true, "n"]]}', JSON),
    (b"age,income,city,vip,note\n3,,Bern,true,n\n", {"content-type": "text/csv"}),
    (gzip.compress(b'{"inputs": [%b]}' % PERSON), {**JSON, "content-encoding": "gzip"}),
    (b'{"inputs": [%b]}' % b", ".join([PERSON] * 500), JSON),
    (b'{"inputs": [{"age": "old"}]}', JSON),
    (b'{"inputs": []}', JSON),
    (b'{"inputs": [1], "more": 2}', JSON),
    (b"{", JSON),
    (b"", JSON),
    (b"x" * 100_001, JSON),
    (b"a=b", {"content-type": "application/x-www-form-urlencoded"}),
    (b"x", {"content-encoding": "br"}),
    (b"x", {**JSON, "content-encoding": "gzip"}),
    (npy([[1.0, 2.0]]), {"content-type": "application/x-npy"}),
    (b'{"inputs": [%b]}' % PERSON, {**JSON, "x-request-timeout": "soon"}),
]


@pytest.mark.anyio
async def test_every_body_gets_the_servers_answer(
    people: tuple[App, Any], client: httpx.Client, serve: Callable[..., Any]
) -> None:
    app, trained = people
    async with serve(app, trained, max_body=100_000) as server:
        for body, headers in BODIES:
            expected = await server.post("/predict", content=body, headers=headers)
            answer = client.post("/predict", content=body, headers=headers)
            assert (answer.status_code, answer.content) == (expected.status_code, expected.content), body[:80]
            assert answer.headers["content-type"] == expected.headers["content-type"]
        for path in ("/model", "/models", "/readyz", "/health", "/livez"):
            expected = await server.get(path)
            assert client.get(path).content == expected.content


def test_the_application_follows_pep_3333(people: tuple[App, Any]) -> None:
    app, trained = people
    with client_of(validator(create_wsgi(app, model=trained, settings=Serve()))) as client:
        assert client.get("/livez").json() == {"status": "ok"}
        assert client.head("/livez").content == b""


def test_a_request_has_an_id_and_is_counted(client: httpx.Client) -> None:
    answer = client.post("/predict", content=b'{"inputs": [%b]}' % PERSON, headers={**JSON, "x-request-id": "abc"})
    assert answer.headers["x-request-id"] == "abc"
    assert client.get("/nothing").status_code == 404
    wrong = client.get("/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    text = client.get("/metrics").text
    assert 'http_requests_total{handler="/predict",method="POST",status="200"} 1.0' in text
    assert 'http_requests_total{handler="other",method="GET",status="404"} 1.0' in text
    assert 'mlapp_model_info{model="people",version="unsaved"} 1.0' in text
    assert 'mlapp_batch_rows_count{model="people"} 1.0' in text


def test_keys_and_origins_of_mlapp_yaml_hold(people: tuple[App, Any]) -> None:
    app, trained = people
    settings = Serve(api_keys=["secret"], cors=["https://a.example"])
    with client_of(create_wsgi(app, model=trained, settings=settings)) as client:
        refused = client.post("/predict", content=b"[%b]" % PERSON)
        assert (refused.status_code, refused.json()["title"]) == (401, "An API key is needed")
        assert client.get("/readyz").status_code == 200
        headers = {"x-api-key": "secret", "origin": "https://a.example"}
        answer = client.post("/predict", content=b"[%b]" % PERSON, headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
        assert client.options("/predict", headers=preflight).headers["access-control-max-age"] == "600"


def test_an_app_without_a_model_answers_503_until_there_is_one(stored_app: tuple[App, Any, Any]) -> None:
    app, trained, store = stored_app
    with client_of(create_wsgi(app, model="production", store=store, settings=Serve())) as client:
        missing = client.post("/predict", content=b"[[1, 2]]")
        assert missing.status_code == 503
        assert "production" in missing.json()["detail"]
        assert client.get("/livez").status_code == 200
        assert "http_requests_total" in client.get("/metrics").text
        store.promote(app.name, store.put(trained).version, "production")
        assert client.post("/predict", content=b"[[1, 2]]").json() == {
            "predictions": [3.0],
            "model": "numbers",
            "version": "1",
        }


def test_a_moved_alias_is_followed(stored_app: tuple[App, Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    app, trained, store = stored_app
    store.promote(app.name, store.put(trained).version, "production")
    application = create_wsgi(app, model="production", store=store, settings=Serve(refresh=0.02), follow=True)
    with client_of(application) as client:
        assert client.get("/model").json()["version"] == "1"
        store.promote(app.name, store.put(trained).version, "production")
        for _ in range(4000):
            if client.get("/model").json()["version"] == "2":
                break
            threading.Event().wait(0.01)
        assert client.post("/predict", content=b"[[1, 2]]").json()["version"] == "2"
    exiting = ThreadPoolExecutor(1)
    exiting.shutdown()  # what the interpreter does first when it exits, to a model that was not closed
    with caplog.at_level("DEBUG"):
        state = application._host.state
        state.loop.loop.set_default_executor(exiting)
        state.loop.run(state.watcher.switch_if_moved())
    assert {record.levelname for record in caplog.records if "answers" in record.message} == {"INFO"}
    assert "cannot schedule" not in caplog.text
    application.close_model()


@pytest.mark.parametrize(("model", "settings"), [(3, Serve()), ("3", Serve()), ("production", Serve(refresh=0))])
def test_only_an_alias_can_be_followed(numbers: tuple[App, Any], model: Any, settings: Serve) -> None:
    with pytest.raises(UsageError, match="follow=True"):
        create_wsgi(numbers[0], model=model, settings=settings, follow=True)


def test_threads_never_meet_in_the_predictor(numbers: tuple[App, Any]) -> None:
    app = App("meeting", target="y")
    app.data_reader(numbers[0].stage("data_reader").function)
    app.model(numbers[0].stage("model").function)
    inside: list[int] = []

    @app.predictor
    def predict(model, features: pd.DataFrame) -> list[float]:
        inside.append(1)
        assert len(inside) == 1, "two threads are in the predictor"
        threading.Event().wait(0.001)
        inside.pop()
        return model.predict(features).tolist()

    with client_of(create_wsgi(app, model=app.train(), settings=Serve())) as client, ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda row: client.post("/predict", content=b"[[%d, 1]]" % row).json(), range(80))
        assert [answer["predictions"] for answer in answers] == [[row + 1.0] for row in range(80)]


def test_a_model_that_is_loaded_before_a_fork_leaves_no_openmp_threads(stored_app: tuple[App, Any, Any]) -> None:
    app, trained, store = stored_app
    store.put(trained)
    threads = []
    load = app.stage("loader").function
    app.stages["loader"] = replace(
        app.stages["loader"], function=lambda path: threads.append(current_thread()) or load(path)
    )

    create_wsgi(app, store=store).load_model()

    # OpenMP's threads belong to the thread that used it, and end with it.
    assert [thread.is_alive() for thread in threads] == [False]


@pytest.mark.parametrize("loads_first", [False, True], ids=["lazy", "loaded by the parent"])
def test_a_forked_process_answers(stored_app: tuple[App, Any, Any], loads_first: bool) -> None:
    app, trained, store = stored_app
    store.put(trained)
    application = create_wsgi(app, store=store, settings=Serve())
    with client_of(application) as client:
        if loads_first:
            application.load_model()
        else:  # the parent's threads do not exist in the child, and its locks may be held there
            assert client.post("/predict", content=b"[[1, 2]]").status_code == 200
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(writer, client.post("/predict", content=b"[[1, 2]]").content)
                os.write(writer, b"requests" if b'status="200"} 1.0' in client.get("/metrics").content else b"none")
            finally:
                os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            assert pipe.read() == b'{"predictions":[3.0],"model":"numbers","version":"1"}requests'


def app_that(numbers: App, predictor: Any) -> App:
    app = App("other", target="y")
    app.data_reader(numbers.stage("data_reader").function)
    app.model(numbers.stage("model").function)
    app.predictor(predictor)
    return app


def test_an_async_predictor_runs(numbers: tuple[App, Any]) -> None:
    async def predict(model, features: pd.DataFrame) -> list[float]:
        return model.predict(features).tolist()

    app = app_that(numbers[0], predict)
    with client_of(create_wsgi(app, model=app.train(), settings=Serve())) as client:
        assert client.post("/predict", content=b"[[1, 2]]").json()["predictions"] == [3.0]


def test_a_predictor_that_yields_streams_as_in_the_server(numbers: tuple[App, Any]) -> None:
    closed = threading.Event()

    def predict(model, features: pd.DataFrame) -> Iterator[float]:
        try:
            yield from model.predict(features).tolist()
        finally:
            closed.set()

    app = app_that(numbers[0], predict)
    application = create_wsgi(app, model=app.train(), settings=Serve())
    with client_of(application) as client:
        answer = client.post("/predict", content=b"[[1, 2], [3, 4]]")
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.text == "data: 3.0\n\ndata: 7.0\n\nevent: end\ndata: {}\n\n"
        whole = client.post("/predict", content=b"[[1, 2]]", headers={"accept": "application/json"})
        assert whole.json()["predictions"] == [3.0]
    closed.clear()
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", "CONTENT_LENGTH": "8"}
    body = application({**environ, "wsgi.input": io.BytesIO(b"[[1, 2]]")}, lambda status, headers: None)
    body.close()  # the client left before the first item was sent
    assert closed.wait(100)


def test_an_error_of_the_apps_code_is_a_problem_without_its_inside(numbers: tuple[App, Any]) -> None:
    def predict(model, features: pd.DataFrame) -> list[float]:
        if features.iloc[0, 0] == 1300:
            raise RuntimeError("secret")
        return model.predict(features).tolist()

    app = app_that(numbers[0], predict)
    with client_of(create_wsgi(app, model=app.train(), settings=Serve())) as client:
        answer = client.post("/predict", content=b"[[1300, 2]]")
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert "secret" not in answer.text


def test_on_predict_runs(numbers: tuple[App, Any]) -> None:
    app = app_that(numbers[0], lambda model, features: model.predict(features).tolist())
    seen: list[Any] = []
    called = threading.Event()

    @app.on_predict
    def note(model, features, predictions) -> None:
        seen.append(predictions)
        called.set()

    with client_of(create_wsgi(app, model=app.train(), settings=Serve())) as client:
        assert client.post("/predict", content=b"[[1, 2]]").status_code == 200
    assert called.wait(100)
    assert seen == [[3.0]]


def test_a_body_that_ends_early_is_refused(numbers: tuple[App, Any]) -> None:
    application = create_wsgi(numbers[0], model=numbers[1], settings=Serve())
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/predict", "CONTENT_LENGTH": "100"}
    messages: list[str] = []
    application({**environ, "wsgi.input": io.BytesIO(b"[[1")}, lambda status, headers: messages.append(status))
    assert messages == ["400 Bad Request"]


def test_what_a_program_predicts_is_counted_logged_and_judged_by_the_truth(
    stored_app: tuple[App, Any, Any], tmp_path: Any
) -> None:
    pytest.importorskip("duckdb", reason="needs mlapp-kit[monitor]")
    app, trained, store = stored_app
    store.put(trained)
    app.set_project(tmp_path, Settings(monitor=Monitor(log="all", window="1h")))
    wsgi = create_wsgi(app, model="latest", store=store)
    with client_of(wsgi) as client:
        body = {"inputs": [[1, 2], [3, 4]], "keys": {"order": 7}}
        answer = client.post("/predict", json=body, headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "mine")
        assert client.post("/predict", json={"inputs": [["x", 2]]}).status_code == 422
        assert client.post("/feedback", json={"id": "mine#1", "truth": True}).json() == {"accepted": 1}
        assert client.post("/feedback", json={"truth": 7}).status_code == 422
        assert "numbers" in client.get("/monitor").text
    wsgi.close_model()
    place = open_place(app.settings.monitor, store, tmp_path, app.name)
    _, rows = query_monitoring_database(place, 'SELECT id, "key.order", weight FROM log ORDER BY id')
    assert rows == [("mine#0", "7", 1.0), ("mine#1", "7", 1.0)]
    windows = list_history_windows(place, since=0, until=2**40)
    (counts,) = read_history_counts(place, windows, {})
    assert (counts.version, counts.rows, counts.refused) == ("1", 2, 1)
