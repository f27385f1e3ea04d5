"""The pipelines of `mlapp eject ci`, run by act and by gitlab-ci-local: a real registry, the double of Kubernetes.

Short scripts stand in for pip and gh, which need a network, and for the slow steps that other tests run: `mlapp build`
and some others push a small image or do nothing. With MLAPP_TEST_PIPELINES=full only pip and gh are replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_double import ONE, ApiDouble, kubeconfig

from mlapp.deploy import Shipment, open_target
from mlapp.project import Project
from tests.integration.images.conftest import NAME, PASSWORD, SETTINGS, USER
from tests.servers import binary

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]

IS_FULL = os.environ.get("MLAPP_TEST_PIPELINES") == "full"
OTHER_IGNORED = ".mlapp/\n.gitlab-ci-local/\n__pycache__/\n.pytest_cache/\n"
SLUG = "team/shop"
TOOLS = f"{Path(__file__).parents[3]}/.tools/gitlab/node_modules/.bin"


class Tokens(BaseHTTPRequestHandler):
    """The service that gives a job its OpenID Connect token."""

    def do_GET(self) -> None:
        body = json.dumps({"value": f"token for {self.path.rpartition('audience=')[2]}"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class GrowingCounts(dict[str, str]):
    """What the pods count: each look finds a hundred requests more."""

    def get(self, pod: str, default: object = None) -> str:
        self[pod] = str(int(super().get(pod, "0")) + 100)
        return f'http_requests_total{{handler="/predict",status="200"}} {self[pod]}\n'


@pytest.fixture(scope="module")
def tokens() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token?version=1"
    server.shutdown()


@pytest.fixture
def cluster() -> Iterator[ApiDouble]:
    """A cluster with a namespace for staging and one for production."""
    double = ApiDouble()
    double.metrics = GrowingCounts()
    for name in ("shop-staging", "shop"):
        double.objects[("namespaces", "", name)] = {"metadata": {"name": name}}
        double.namespaces.add(name)
    yield double
    double.close()


@pytest.fixture
def repository(root, registry, tmp_path, mlapp) -> Path:
    """A project in a Git repository, with a store that the jobs share and a key to sign with."""
    command = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tmp_path / "key.pem"]
    subprocess.run(command, check=True)
    settings = yaml.safe_load(SETTINGS)
    settings["image"]["name"] = f"{registry.host}/team/{NAME}"
    settings |= {
        "name": NAME,
        "store": str(tmp_path / "store"),
        "targets": {"k8s": {"rollout": {"leave": 0, "timeout": 60}}},
        "environments": {
            "staging": {"targets": {"k8s": {"namespace": "shop-staging"}}},
            "production": {"targets": {"k8s": {"namespace": "shop"}}},
        },
    }
    (root / "mlapp.yaml").write_text(yaml.safe_dump(settings))
    (root / "test_app.py").write_text("def test_the_rule():\n    assert 1.0 < 2.0\n")
    (root / ".gitignore").write_text(OTHER_IGNORED)
    for format in ("github", "gitlab"):
        assert mlapp("eject", "ci", "--format", format, cwd=root).code == 0
    for command in ("init -q -b main", "add .", "-c user.name=a -c user.email=a@b commit -qm start"):
        subprocess.run(["git", *command.split()], cwd=root, check=True)
    subprocess.run(["git", "remote", "add", "origin", f"https://github.com/{SLUG}.git"], cwd=root, check=True)
    return root


@pytest.fixture
def run(repository, registry, tiny, tmp_path) -> Callable[..., str]:
    """Run a command in the repository as a CI system's machine would; its output."""
    folder = tmp_path / "bin"
    folder.mkdir()
    tiny(f"{registry.host}/team/{NAME}:tiny", file=b"1")
    replies = {
        "build": 'docker push "$IMAGE_NAME:tiny" | sed -n "s|.*digest: \\(sha256:[0-9a-f]*\\) .*|$IMAGE_NAME@\\1|p"',
        "train": """echo '{"version": 1}'""",
        "status": "echo '{\"release\": {}}'",
    }
    cases = " ".join(f"*,{name},*) {reply}; exit;;" for name, reply in replies.items())
    scripts = {
        "python": f'[ "$2" != pip ] || exit 0\nexec {sys.executable} "$@"',
        "mlapp": f'echo "$*" >>{tmp_path}/mlapp.log\nIMAGE_NAME={registry.host}/team/{NAME}\n'
        f'case "$REPLACED" in *",$1,"*) case ",$1," in {cases} esac; exit;; esac\nexec {sys.executable} -m mlapp "$@"',
        "gh": f'printf "%s\\n" "$*" >>{tmp_path}/gh.log\n[ -z "$NUMBER" ] || printf %s "$TEXT" >{tmp_path}/comment',
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    environ = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    environ.pop("DOCKER_CONFIG", None)  # the pipeline logs in itself

    def run_command(command: list[object], replaced: str) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=repository,
            env={**environ, "REPLACED": "" if IS_FULL else replaced},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run_command


@pytest.fixture
def act(run, repository, cluster, tokens, tmp_path) -> Callable[..., str]:
    """Run a workflow of GitHub on this machine; the actions from elsewhere do nothing."""
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "action.yml").write_text(
        "name: stub\ndescription: stub\nruns: {using: composite, steps: [{run: 'true', shell: bash}]}\n"
    )
    lines = [line for path in (repository / ".github").rglob("*.yml") for line in path.read_text().splitlines()]
    actions = {line.split("uses: ")[1].split(" ")[0] for line in lines if "uses: " in line and "@" in line}

    def run_event(event: str, workflow: str, payload: dict[str, Any], replaced: str = ",") -> str:
        (tmp_path / "event.json").write_text(json.dumps({"repository": {"full_name": SLUG}, **payload}))
        variables = {
            "KUBE_SERVER": cluster.url,
            "MLAPP_SIGN": f"--private-key {tmp_path}/key.pem",
            "MLAPP_CANARY_TIME": "1s",
            "REGISTRY_USER": USER,
        }
        command: list[object] = [binary("act", script="pipelines.sh"), event, "--action-offline-mode"]
        command += ["-W", f".github/workflows/{NAME}-{workflow}.yml", "-P", "ubuntu-24.04=-self-hosted"]
        command += ["-e", tmp_path / "event.json", "--secret", f"REGISTRY_PASSWORD={PASSWORD}"]
        command += [part for action in actions for part in ("--local-repository", f"{action}={stub}")]
        command += [part for name, value in variables.items() for part in ("--var", f"{name}={value}")]
        command += ["--env", f"ACTIONS_ID_TOKEN_REQUEST_URL={tokens}", "--env", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=x"]
        return run(command, replaced)

    return run_event


def live_image(cluster: ApiDouble, namespace: str) -> str:
    return cluster.get("deployments", NAME, namespace)["spec"]["template"]["spec"]["containers"][0]["image"]


def release_before(repository: Path, cluster: ApiDouble, tmp_path: Path) -> None:
    """Something is live in production before the pipeline runs: release 1, of the store's version 1."""
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(cluster)))
    project = Project.find(repository, environment="production")
    target = open_target("k8s", NAME, project.settings, {"kubeconfig": str(tmp_path / "kubeconfig")})
    target.apply(Shipment(NAME, ONE, "1", "c0ffee", example=[{"length": 1.0}]))


def test_a_push_to_main_goes_through_staging_and_a_canary_into_production(act, repository, cluster, tmp_path, mlapp):
    release_before(repository, cluster, tmp_path)
    assert mlapp("train", cwd=repository).code == 0
    log = act("push", "deploy", {"ref": "refs/heads/main"}, replaced=",train,build,models,")
    assert live_image(cluster, "shop-staging") == live_image(cluster, "shop") != ONE
    assert "release 2 as a canary" in log
    assert "failed, 0.0 ms; live: " in log, "the canary was watched"
    commands = (tmp_path / "mlapp.log").read_text().splitlines()
    assert f"models sign 1 --private-key {tmp_path}/key.pem" in commands
    assert commands[-1] == "models promote 1 production"


def test_a_pull_request_is_compared_with_production(act, repository, cluster, tmp_path, mlapp):
    release_before(repository, cluster, tmp_path)
    mlapp("train", cwd=repository)
    mlapp("models", "promote", "1", cwd=repository)
    settings = yaml.safe_load((repository / "mlapp.yaml").read_text())
    settings["environments"]["production"]["targets"]["k8s"]["replicas"] = 3
    (repository / "mlapp.yaml").write_text(yaml.safe_dump(settings))
    act("pull_request", "pull-request", {"pull_request": {"number": 7, "head": {"repo": {"full_name": SLUG}}}})
    comment = (tmp_path / "comment").read_text()
    assert "| score (test) | 1 | 1 |  |" in comment
    assert "+  replicas: 3" in comment
    assert f"repos/{SLUG}/issues/7/comments" in (tmp_path / "gh.log").read_text()


def test_a_pipeline_of_gitlab_ships_the_same_way(run, repository, registry, cluster, tmp_path):
    release_before(repository, cluster, tmp_path)
    program = binary("gitlab-ci-local", TOOLS, script="pipelines.sh")
    variables = {"KUBE_SERVER": cluster.url, "SIGN": f"--private-key {tmp_path}/key.pem", "CANARY_TIME": "1s"}
    variables |= {"REGISTRY_USER": USER, "REGISTRY_PASSWORD": PASSWORD, "KUBE_ID_TOKEN": "token"}
    given = [part for name, value in variables.items() for part in ("--variable", f"{name}={value}")]
    pipeline = yaml.safe_load((repository / ".gitlab-ci.yml").read_text())
    del pipeline["release"]["services"]  # Docker in Docker, whose image cannot be pulled here: this machine's engine
    del pipeline["release"]["variables"]
    (repository / "pipeline.yml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    command = [program, "--force-shell-executor", "--file", "pipeline.yml", *given]
    run(command, replaced=",train,build,models,status,deploy,")
    commands = [line.partition(" --image")[0] for line in (tmp_path / "mlapp.log").read_text().splitlines()]
    assert commands == [
        "train --json",
        f"models sign 1 --private-key {tmp_path}/key.pem",
        "build --model 1 --push",
        "models show 1",
        "deploy --target k8s --env staging",
        "models show 1",
        "status --target k8s --env production --json",
        "deploy --target k8s --env production",
        "models promote 1 production",
    ]
    shipped = (tmp_path / "mlapp.log").read_text().splitlines()[-2]
    assert f"{registry.host}/team/{NAME}@sha256:" in shipped
    assert shipped.endswith("--model 1 --canary 10 --auto-promote 1s")
