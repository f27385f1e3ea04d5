"""The package that docs/extending.md and extending-target.md build works: its code blocks are installed and run."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mlapp.deploy import Shipment, open_target
from mlapp.engines import open_project_engine
from mlapp.errors import UsageError
from mlapp.flyte.errors import RunFailedError
from mlapp.frameworks import registry
from mlapp.project import Project
from tests.servers import free_port

DOCS = Path(__file__).parents[3] / "docs"
PAGES = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("extending.md", "extending-target.md"))
BLOCKS = dict(re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGES, re.DOTALL))


SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"predictions": [50.0]}')
    do_POST = do_GET

HTTPServer(("127.0.0.1", int(sys.argv[-1])), Handler).serve_forever()
"""
"""What the page's target starts in place of `mlapp serve`, which takes a second each time."""


class Rents(BaseHTTPRequestHandler):
    """Answers `limit` rows; the rent is 10, 20, 30 …"""

    def do_GET(self) -> None:
        limit = int(parse_qs(urlsplit(self.path).query)["limit"][0])
        rows = [{"rooms": row, "rent": 10.0 * (row + 1)} for row in range(limit)]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(rows).encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def rents() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Rents)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path: Path, rents: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The app of the page, with the package of the page installed."""
    site = tmp_path / "site"
    info = site / "acme_mlapp-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-mlapp\nVersion: 1.0\n")
    entries = BLOCKS["pyproject.toml"].partition("\n[project.entry-points")[2].replace('"', "")
    (info / "entry_points.txt").write_text(f"[{entries.removeprefix('.').replace('[project.entry-points.', '[')}")
    for name, code in BLOCKS.items():
        if name.startswith("acme_mlapp/"):
            (site / name).parent.mkdir(exist_ok=True)
            (site / name).write_text(code)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "app.py").write_text(BLOCKS["app.py"].replace("http://127.0.0.1:8099", rents))
    (folder / "mlapp.yaml").write_text("name: rents\nengine: acme\ntargets: {acme: {folder: gitops}}\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.chdir(folder)
    importlib.invalidate_caches()
    registry._list_framework_names.cache_clear()
    registry._load_framework_adapter.cache_clear()
    yield Project.find()
    registry._list_framework_names.cache_clear()
    registry._load_framework_adapter.cache_clear()
    for module in [name for name in sys.modules if name.partition(".")[0] == "acme_mlapp"]:
        del sys.modules[module]


def test_the_framework_and_the_source_train_a_model_that_predicts(project: Project) -> None:
    trained = project.app.train(limit=10, test_size=0.1, shuffle=False)
    version = project.app.save(trained)
    assert version.manifest.framework == "acme"
    assert project.app.load().predict([{"rooms": 3}]) == [50.0]


def test_the_target_deploys_and_rolls_back(project: Project) -> None:
    target = open_target("acme", "rents", project.settings)
    assert target.render(Shipment("rents", "rents@sha256:1")) == [{"app": "rents", "image": "rents@sha256:1"}]
    target.apply(Shipment("rents", "rents@sha256:1"))
    target.apply(Shipment("rents", "rents@sha256:2"))
    assert target.rollback().shipment.image == "rents@sha256:1"
    assert target.status().release == target.releases()[2]
    assert target.delete() == ["000001.json", "000002.json", "000003.json"]
    assert target.status().release is None


def test_the_target_with_every_command_runs_them_all(project: Project, mlapp: Any) -> None:
    port = free_port(6)
    (project.root / "server.py").write_text(SERVER)
    source = Path(importlib.util.find_spec("acme_mlapp.machine").origin)
    source.write_text(source.read_text().replace('"-m", "mlapp", "serve"', '"server.py"'))
    (project.root / "mlapp.yaml").write_text(f"name: rents\ntargets: {{machine: {{port: {port}}}}}\n")
    (project.root / "rows.json").write_text('[{"rooms": 3}]')
    project.app.save(project.app.train(limit=10, test_size=0.1, shuffle=False))
    assert len(BLOCKS["acme_mlapp/machine.py"].splitlines()) <= 150

    def run(*arguments: str, code: int = 0) -> Any:
        ran = mlapp(*arguments)
        assert ran.code == code, (arguments, ran.err)
        return json.loads(ran.out) if "--json" in arguments else ran.out

    try:
        assert "percent: 25" in run("deploy", "--canary", "25", "--dry-run")
        assert "+{'app': 'rents'" in run("deploy", "--diff", code=1)
        assert run("deploy", "--json")["state"] == "live"
        assert run("deploy", "--diff") == ""
        assert json.loads(run("predict", "--target", "machine", "--features", "rows.json")) == [50.0]
        assert run("deploy", "--canary", "25", "--json")["state"] == "canary"
        assert run("status", "--json")["traffic"] == {"1": 75, "2": 25}
        assert run("abort", "--json")["state"] == "aborted"
        assert run("deploy", "--canary", "25", "--auto-promote", "0.1s", "--json")["number"] == 3
        assert run("rollback", "--json")["note"] == "rollback to 1"
        assert [each["state"] for each in run("releases", "--json")] == ["superseded", "aborted", "superseded", "live"]
        assert "GET /readyz" in run("logs", "--tail", "20")
        assert "There is no canary release of rents." in mlapp("promote").err
    finally:
        removed = run("delete", "--yes", "--json")
    assert removed == ["process of release 4"]


def test_the_engine_trains_in_another_process(project: Project) -> None:
    engine = open_project_engine(project)
    registration = engine.register_project(engine.build_image(print), print)
    run = engine.start_run("train", {"limit": 20}, registration)
    assert engine.follow_run(run.id, print, print).phase == "succeeded"
    assert engine.fetch_model(run.id).version == 1
    with pytest.raises(UsageError, match="does not support list_runs"):
        engine.list_runs()


def test_a_run_that_fails_says_so(project: Project) -> None:
    engine = open_project_engine(project)
    run = engine.start_run("train", {"limit": "many"}, engine.register_project("none", print))
    with pytest.raises(RunFailedError, match="failed"):
        engine.follow_run(run.id, print, print)
