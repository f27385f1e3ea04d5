"""`mlapp serve` as a process: how it starts, changes its model, and ends."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

import httpx
import pytest

from .conftest import PATIENCE, start_program, until

BODY = {"inputs": [{"a": 1.0, "b": 2.0}]}


def is_closed(url: str) -> bool:
    """Whether the server accepts no more connections."""
    try:
        httpx.get(f"{url}/livez")
    except httpx.HTTPError:
        return True
    return False


def test_sigterm_finishes_what_is_in_flight_and_exits_0(serve, new_project) -> None:
    with serve(new_project(), start=start_program) as server:
        with server.busy():
            server.process.send_signal(signal.SIGTERM)
            until(lambda: is_closed(server.url))
        assert server.process.wait(PATIENCE) == 0


def test_readiness_fails_first_while_requests_are_still_answered(serve, new_project) -> None:
    with serve(new_project(), "--grace", "600") as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert httpx.get(f"{server.url}/livez").status_code == 200
        answer = httpx.post(f"{server.url}/predict", json=BODY)
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"  # who keeps connections goes elsewhere before the doors close
        assert server.stop() == 0  # a second signal ends the waiting


def test_a_port_that_is_in_use_is_named(mlapp, new_project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = mlapp(new_project(), "serve", "--port", str(port))
    assert ran.returncode in (1, 2)
    assert str(port) in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--model", "7"], "'sums' has no version 7; it has 1."), (["--model", "prod"], "'sums' has no alias 'prod'")],
)
def test_a_model_that_is_not_there_is_an_error_at_the_start(
    mlapp, new_project, arguments: list[str], says: str
) -> None:
    ran = mlapp(new_project(), "serve", "--port", "0", *arguments)
    assert ran.returncode == 2
    assert says in ran.stderr


def test_a_model_that_fails_to_load_is_an_error_at_the_start(mlapp, new_project) -> None:
    project: Path = new_project()
    app = project / "app.py"
    app.write_text(app.read_text().replace("return Sums(**json", "raise RuntimeError('no weights')  #"))
    ran = mlapp(project, "serve", "--port", "0")
    assert ran.returncode == 1
    assert "loader 'load' in app.py" in ran.stderr
    assert "raised RuntimeError: no weights" in ran.stderr


def test_a_changed_file_of_a_model_is_refused_at_the_start(mlapp, new_project) -> None:
    project: Path = new_project()
    (weights,) = project.glob(".mlapp/store/sums/files/*/model.json")
    weights.write_text('{"factor": 99}')
    ran = mlapp(project, "serve", "--port", "0")
    assert ran.returncode == 1
    assert "was changed after it was stored" in ran.stderr


def test_a_moved_alias_switches_the_model_without_failing_a_request(serve, mlapp, new_project) -> None:
    project: Path = new_project()
    assert mlapp(project, "models", "promote", "1", "production").returncode == 0
    assert mlapp(project, "train", "-p", "factor=10").returncode == 0
    with serve(project, "--model", "production", MLAPP_SERVE__REFRESH="0.2") as server, httpx.Client() as client:
        failed: list[httpx.Response] = []

        def ask() -> tuple[str, list[float]]:
            answer = client.post(f"{server.url}/predict", json=BODY)
            if answer.status_code != 200:
                failed.append(answer)
            answer_body = answer.json()
            return answer_body["version"], answer_body["predictions"]

        assert ask() == ("1", [3.0])
        promoting = threading.Thread(target=mlapp, args=(project, "models", "promote", "2", "production"))
        promoting.start()
        until(lambda: ask() == ("2", [30.0]))
        promoting.join()
        assert not failed


def test_a_new_version_that_fails_leaves_the_old_one_serving(serve, mlapp, new_project) -> None:
    project: Path = new_project()
    mlapp(project, "models", "promote", "1", "production")
    mlapp(project, "train")
    newest = max(project.glob(".mlapp/store/sums/files/*/model.json"), key=lambda path: path.stat().st_mtime)
    newest.write_text("not json")
    with serve(project, "--model", "production", MLAPP_SERVE__REFRESH="0.2") as server:
        mlapp(project, "models", "promote", "2", "production")
        until(lambda: "was changed after it was stored" in server.text())
        assert httpx.post(f"{server.url}/predict", json=BODY).json()["version"] == "1"
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_reload_follows_the_code_and_new_versions(serve, mlapp, new_project) -> None:
    project: Path = new_project()
    with serve(project, "--reload") as server:

        def ask() -> dict:
            try:
                return httpx.post(f"{server.url}/predict", json=BODY).json()
            except httpx.HTTPError:
                return {}

        assert ask()["predictions"] == [3.0]
        mlapp(project, "train", "-p", "factor=2")
        until(lambda: ask().get("version") == "2")
        app = project / "app.py"
        app.write_text(
            app.read_text().replace("return model.predict(features).tolist()", "return [42.0] * len(features)")
        )
        until(lambda: ask().get("predictions") == [42.0])
        (project / "mlapp.yaml").write_text("serve:\n  api_keys: [secret]\n")
        until(lambda: ask().get("status") == 401)


WRONG_CODE = {
    "a syntax error": "(",
    "an error": "raise RuntimeError('half done')",
    "an exit": "import sys; sys.exit()",
    "an error that is no Exception": "raise BaseException('half done')",
    "an exit of the process": "import os; os._exit(0)",
    "a crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
}


def test_reload_keeps_a_server_that_works_until_the_new_code_works(serve, new_project) -> None:
    import psutil

    project: Path = new_project()
    app, pid = project / "app.py", project / "pid"
    code = app.read_text()
    with serve(project, "--reload") as server:

        def predict() -> list[float]:
            return httpx.post(f"{server.url}/predict", json=BODY, timeout=PATIENCE).json()["predictions"]

        for failures, wrong in enumerate(WRONG_CODE.values(), 1):
            app.write_text(f"{code}\n{wrong}\n")
            until(lambda failures=failures: server.text().count("could not start") == failures)
            assert predict() == [3.0]
        app.write_text(f"{code}\nimport os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(10**6)\n")
        until(lambda: pid.exists() and pid.read_text() != "")
        assert predict() == [3.0]
        hanging = psutil.Process(int(pid.read_text()))
        app.write_text(code.replace("return model.predict(features).tolist()", "return [42.0] * len(features)"))
        until(lambda: predict() == [42.0])
        until(lambda: not hanging.is_running())


def test_reload_starts_when_wrong_code_is_fixed(serve, new_project) -> None:
    """The server has never worked: it waits for a change instead of giving up, also if the code hangs."""
    project: Path = new_project()
    app, pid = project / "app.py", project / "pid"
    code = app.read_text()
    hang = f"\nimport os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(10**6)\n"

    def mend() -> None:
        until(lambda: pid.exists() and pid.read_text() != "")
        app.write_text(code)

    app.write_text(code + hang)
    mending = threading.Thread(target=mend)
    mending.start()
    with serve(project, "--reload") as server:
        mending.join()
        assert httpx.post(f"{server.url}/predict", json=BODY).json()["predictions"] == [3.0]


@pytest.mark.parametrize("error", [RuntimeError("odd"), SystemExit(3), KeyboardInterrupt(), OSError("no memory")])
def test_workers_keep_serving_if_their_parent_cannot_load_the_new_version(monkeypatch, error: BaseException) -> None:
    from mlapp.config import Serve
    from mlapp.serving.process import preload, supervisor
    from mlapp.serving.serve_spec import ServeSpec

    def fail(plan: ServeSpec) -> None:
        raise error

    reports: list[str] = []
    spec = ServeSpec(apps=(), bundle=None, environment=None, settings=Serve(workers=2))
    monkeypatch.setattr(preload, "preload_models", fail)
    with socket.socket() as listener:
        parent = supervisor.Supervisor(spec, listener, reports.append)
        monkeypatch.setattr(parent, "_fork_server", object())
        before = signal.getsignal(signal.SIGTERM)
        assert parent._load_supervised_models_again() is False
        assert signal.getsignal(signal.SIGTERM) is before
    assert reports == [f"The workers keep serving the models that they have loaded: {error!r}"]


def test_a_worker_that_dies_is_replaced_and_metrics_are_of_all(serve, new_project) -> None:
    import psutil

    with serve(new_project(), "--workers", "2") as server:
        for _ in range(20):
            assert httpx.post(f"{server.url}/predict", json=BODY).status_code == 200
        until(lambda: server.metric("http_requests_total", handler="/predict") == 20)

        def workers() -> set[int]:
            children = psutil.Process(server.process.pid).children()
            alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
            return {child.pid for child in alive if "resource_tracker" not in " ".join(child.cmdline())}

        before = workers()
        assert len(before) == 2
        victim = min(before)
        psutil.Process(victim).kill()
        until(lambda: len(workers()) == 2 and victim not in workers())
        until(lambda: httpx.post(f"{server.url}/predict", json=BODY).status_code == 200)
        assert server.stop() == 0


def test_a_key_is_asked_for_but_not_by_the_probes(serve, new_project) -> None:
    with serve(new_project(), MLAPP_SERVE__API_KEYS="first,second") as server:
        url = f"{server.url}/predict"
        assert httpx.post(url, json=BODY).status_code == 401
        assert httpx.post(url, json=BODY, headers={"X-API-Key": "wrong"}).status_code in (401, 403)
        assert httpx.post(url, json=BODY, headers={"X-API-Key": "second"}).status_code == 200
        assert httpx.post(url, json=BODY, headers={"Authorization": "Bearer first"}).status_code == 200
        assert httpx.get(f"{server.url}/livez").status_code == 200
        infer = f"{server.url}/v2/models/sums/infer"
        for path in (infer, f"{infer}/", f"{server.url}/metrics", f"{server.url}/v2/models/sums/"):
            assert httpx.post(path, json={}).status_code == httpx.get(path).status_code == 401


def test_a_client_that_hangs_up_frees_its_place_and_half_a_body_delays_no_other_client(serve, new_project) -> None:
    with serve(new_project()) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        half = []
        for _ in range(50):
            connection = socket.create_connection((host, int(port)))
            connection.sendall(head + b'{"inputs": [')
            half.append(connection)
        assert httpx.post(f"{server.url}/predict", json=BODY).json()["predictions"] == [3.0]
        for connection in half:
            connection.close()
        assert httpx.post(f"{server.url}/predict", json=BODY).status_code == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 200
