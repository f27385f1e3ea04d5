"""The model under gunicorn: each kind of worker, loaded before and after the fork."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from mlapp.errors import ConfigError
from mlapp.project import Project
from mlapp.serving.process.wsgi_site import run_wsgi_site
from mlapp.serving.serve_spec import ServeSpec
from tests.servers import free_port, running, wait

GUNICORN = [sys.executable, "-m", "gunicorn"]
APP = """
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from mlapp import App

app = App("lines", target="y")


@app.data_reader
def read() -> pd.DataFrame:
    x = np.arange(40.0)
    return pd.DataFrame({"x": x, "y": 2 * x})


app.model(LinearRegression)
"""
SITE = """
import os

from app import app
from mlapp.wsgi import create_wsgi

model = create_wsgi(app, model="production")


def application(environ, start_response):
    def start(status, headers):
        start_response(status, [*headers, ("x-process", str(os.getpid()))])

    return model(environ, start)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an app, its trained model, and two sites: one loads the model lazily, one before the fork."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "app.py").write_text(APP)
    (folder / "mlapp.yaml").write_text("app: app.py\n")
    (folder / "lazy.py").write_text(SITE)
    (folder / "shared.py").write_text(SITE + "\n\nmodel.load_model()\n")
    script = "from app import app; app.train(); app.store().promote('lines', app.save().version, 'production')"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=120)
    return folder


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def server(request: pytest.FixtureRequest, site: Path, tmp_path: Path) -> Iterator[str]:
    module, *options = request.param
    port = free_port()
    command = [
        *GUNICORN,
        "--bind",
        f"127.0.0.1:{port}",
        "--chdir",
        site,
        "--no-control-socket",
        "--timeout=120",
        *options,
        f"{module}:application",
    ]

    with running(command, tmp_path, lambda: is_ready(f"http://127.0.0.1:{port}")):
        yield f"http://127.0.0.1:{port}"


SYNC, THREADS, GEVENT = ("--worker-class=sync",), ("--worker-class=gthread", "--threads=4"), ("--worker-class=gevent",)


@pytest.mark.parametrize(
    ("server", "processes"),
    [
        (("shared", *SYNC, "--workers=4", "--preload"), 4),
        (("lazy", *THREADS, "--workers=1"), 1),
        (("shared", *GEVENT, "--workers=4", "--preload"), 4),
    ],
    indirect=["server"],
    ids=lambda value: " ".join(value).replace("--", "") if isinstance(value, tuple) else "",
)
def test_every_worker_answers_many_clients(server: str, processes: int) -> None:
    seen: set[str] = set()

    def predict(row: int) -> float:
        answer = httpx.post(f"{server}/predict", json={"inputs": [{"x": row}]}, timeout=60)
        assert answer.status_code == 200, answer.text
        seen.add(answer.headers["x-process"])
        return answer.json()["predictions"][0]

    with ThreadPoolExecutor(8) as clients:
        for _ in range(20):
            assert list(clients.map(predict, range(24))) == pytest.approx([2.0 * row for row in range(24)])
            if len(seen) == processes:
                break
    assert 1 <= len(seen) <= processes
    in_chunks = httpx.post(f"{server}/predict", content=iter([b'{"inputs"', b': [{"x": 3}]}']), timeout=60)
    assert in_chunks.json()["predictions"] == pytest.approx([6.0])
    wrong = httpx.post(f"{server}/predict", json={"inputs": [{"x": "three"}]}, timeout=60)
    assert (wrong.status_code, wrong.headers["content-type"]) == (422, "application/problem+json")
    assert "http_requests_total" in httpx.get(f"{server}/metrics", timeout=60).text


def find_master(url: str) -> psutil.Process:
    """The parent of the worker that answers a prediction."""
    answer = httpx.post(f"{url}/predict", json=[{"x": 3}], timeout=60)
    assert answer.json()["predictions"] == pytest.approx([6.0])
    master = psutil.Process(int(answer.headers["x-process"])).parent()
    assert master is not None
    return master


def test_mlapp_serve_runs_a_site_with_gunicorn_and_the_last_master_leaves_no_files(site: Path, tmp_path: Path) -> None:
    """After SIGUSR2, a second master serves with the variables of the first, and so with its folder of metrics."""
    port, place = free_port(), tmp_path / "place"
    place.mkdir()
    command = ["env", "MLAPP_SERVE__WSGI=lazy.py:application", f"TMPDIR={place}"]
    command += [sys.executable, "-m", "mlapp", "-C", site, "serve", "--workers", "2", "--port", port]
    url = f"http://127.0.0.1:{port}"
    with running(command, tmp_path, lambda: is_ready(url)):
        old = find_master(url)
        old.send_signal(signal.SIGUSR2)
        wait(lambda: find_master(url) != old, tmp_path)
        old.terminate()
        old.wait(60)
        new = find_master(url)
        assert [folder.name[:18] for folder in place.iterdir()] == ["mlapp-tmp-metrics-"]
        assert "http_requests_total" in httpx.get(f"{url}/metrics", timeout=60).text
    new.wait(60)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("wsgi", "text"), [("gone.py:site", "there is no"), ("lazy.py", "no object in it")])
def test_a_site_that_is_not_there_is_named(site: Path, monkeypatch: pytest.MonkeyPatch, wsgi: str, text: str) -> None:
    monkeypatch.setenv("MLAPP_SERVE__WSGI", wsgi)
    project = Project.find(site)
    plan = ServeSpec(apps=(), bundle=None, environment=None, settings=project.settings.serve)
    with pytest.raises(ConfigError, match=text):
        run_wsgi_site(wsgi, plan, project)


def test_first_requests_that_meet_under_gevent_do_not_wait_for_each_other(site: Path) -> None:
    """gunicorn forks and then replaces `threading.Lock`: the application must hold no lock from before."""
    script = """
import shared
from gevent import joinall, monkey, spawn

monkey.patch_all()
from wsgiref.util import setup_testing_defaults

def ask():
    environ = {"PATH_INFO": "/readyz", "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environ)
    return shared.application(environ, lambda status, headers: None)

print(all(one.value == [ask()[0]] for one in joinall([spawn(ask) for _ in range(8)])))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=site, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True", done.stdout + done.stderr
