"""`mlapp runs logs`: Flyte's links, or the logs of the pods where there are none and a kubeconfig reaches them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlapp.flyte.engine import FlytekitEngine
from mlapp.flyte.interface import Registration
from tests.integration.flyte.flyteadmin import DOMAIN, PROJECT, Flyteadmin

LABELS = {"execution-id": "r1", "node-id": "train-evaluate-save"}
ENDED = {
    "name": "main",
    "image": "flowers",
    "imageID": "",
    "ready": False,
    "restartCount": 0,
    "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
}
PODS = {
    "kind": "PodList",
    "items": [
        {"metadata": {"name": "r1-n0-0", "labels": LABELS}, "status": {"containerStatuses": [ENDED], "phase": "Failed"}}
    ],
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A Kubernetes API with one pod of the run; the paths that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            place = f"/api/v1/namespaces/{PROJECT}-{DOMAIN}/pods"
            is_log = self.path.startswith(f"{place}/r1-n0-0/log")
            found = is_log or self.path.startswith(f"{place}?labelSelector=execution-id%3D")
            body = b"Epoch 1\nEpoch 2\n" if is_log else json.dumps(PODS).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain" if is_log else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(engine: FlytekitEngine, admin: Flyteadmin, registered: Registration) -> Iterator[str]:
    """A run that goes on, and whose tasks have no links to logs."""
    admin.pending["read"] = "Unschedulable"
    started = engine.start_run("train", {"limit": 7}, registered)
    while not admin.executions[started.id].tasks:
        time.sleep(0.02)
    for tasks in admin.executions[started.id].tasks.values():
        for task in tasks:
            del task.closure.logs[:]
    yield started.id
    engine.abort_run(started.id, "enough")
    del admin.pending["read"]


def test_logs_come_from_the_pods_where_flyte_has_no_links(
    cluster: list[str], run: str, engine: FlytekitEngine, mlapp: Callable[..., Any]
) -> None:
    ran = mlapp("runs", "logs", run)
    assert (ran.code, ran.out) == (0, "Epoch 1\nEpoch 2\n")
    assert "train + evaluate + save" in ran.err
    assert json.loads(mlapp("runs", "logs", run, "--json").out)[0]["text"] == "Epoch 1\nEpoch 2\n"
    assert f"execution-id%3D{run}" in cluster[0]
    assert engine.list_kill_reasons(run) == ["OOMKilled"]


def test_without_links_and_without_a_cluster_it_says_what_is_missing(
    run: str, mlapp: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    ran = mlapp("runs", "logs", run)
    assert (ran.code, "plugins.logs" in ran.err) == (0, True)


def test_a_run_that_does_not_exist_has_no_logs(mlapp: Callable[..., Any]) -> None:
    ran = mlapp("runs", "logs", "nosuch")
    assert (ran.code, "There is no run 'nosuch'." in ran.err) == (2, True)


@pytest.mark.parametrize("place", [("PROJECT", "other"), ("DOMAIN", "production")])
def test_runs_of_a_project_that_flyte_does_not_have_are_not_none(
    place: tuple[str, str], mlapp: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"MLAPP_FLYTE__{place[0]}", place[1])
    ran = mlapp("runs", "list")
    assert (ran.code, f"'{place[1]}'" in ran.err) == (1, True)
