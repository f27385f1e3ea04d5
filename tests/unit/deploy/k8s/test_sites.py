"""A site of Flask or Django on Kubernetes: the site answers the probes of its objects."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from api_double import ONE

from mlapp.project import Project
from mlapp.serving.process.wsgi_site import make_gunicorn_command
from mlapp.serving.serve_spec import ServeSpec

pytest.importorskip("django")
pytest.importorskip("gunicorn")

ASK = """
import importlib, json, sys
import httpx
sys.path.insert(0, ".")
place, paths = sys.argv[1], json.loads(sys.argv[2])
module, _, name = place.replace("/", ".").replace(".py", "").partition(":")
site = getattr(importlib.import_module(module), name)
from app import app
app.train()
app.store().promote(app.name, app.save().version, "production")
client = httpx.Client(transport=httpx.WSGITransport(site), base_url="http://10.1.2.3:8000")  # as the kubelet asks
answers = {path: client.get(path).status_code for path in paths}
flower = dict.fromkeys(importlib.import_module("app").COLUMNS, 5.0)
answers["prediction"] = client.post("/predict", json={"inputs": [flower]}).text
print(json.dumps({**answers, "metrics": "http_requests_total" in client.get("/metrics").text}))
"""


@pytest.mark.parametrize("template", ["flask", "django"])
def test_a_site_answers_the_probes_and_the_scraper_of_its_pods(mlapp, api, target, tmp_path, monkeypatch, template):
    api.answers[ONE] = (200, {"predictions": ["setosa"]})
    assert mlapp("init", "flowers", "--template", template, cwd=tmp_path).code == 0
    root = tmp_path / "flowers"
    (root / "mlapp.yaml").write_text(
        f"{(root / 'mlapp.yaml').read_text()}targets: {{k8s: {{rollout: {{leave: 0, timeout: 60}}}}}}\n"
    )
    monkeypatch.chdir(root)

    assert mlapp("deploy", "--image", ONE, "--model", "latest").code == 0

    pod = api.get("deployments", "flowers")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    probes = [container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
    (port,) = container["ports"]
    assert {probe["port"] for probe in probes} <= {port["name"], port["containerPort"]}
    assert api.get("services", "flowers")["spec"]["ports"][0]["targetPort"] in (port["name"], port["containerPort"])
    annotations = pod["metadata"].get("annotations", {})
    project = Project.find(root)
    place = str(project.settings.serve.wsgi)
    command = make_gunicorn_command(
        place, ServeSpec(apps=(), bundle=None, environment=None, settings=project.settings.serve), project
    )
    assert command[1:3] == ["-m", "mlapp.serving.process.gunicorn_master"]
    paths = sorted({*(probe["path"] for probe in probes), annotations.get("prometheus.io/path", "/metrics")})
    asked = subprocess.run(
        [sys.executable, "-c", ASK, place, json.dumps(paths)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert asked.returncode == 0, asked.stderr
    answers = json.loads(asked.stdout.splitlines()[-1])
    assert {answers[path] for path in paths} == {200}, answers
    assert "predictions" in answers["prediction"]
    assert answers["metrics"]
