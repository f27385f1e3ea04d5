"""The target docker: an image runs on this engine, and is replaced without losing a request."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.error import HTTPError

import pytest
import yaml

from mlapp.config import Serve
from mlapp.deploy import DeployError, Shipment, open_target
from mlapp.images.build import Image
from mlapp.images.engine import connect_image_engine
from mlapp.images.project_image import build_project_image, bundle_project
from mlapp.images.user_dockerfile import eject_dockerfile
from mlapp.project import Project
from tests.compose import compose
from tests.integration.images.conftest import BASE, NAME
from tests.servers import free_port, is_open, running, wait

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]
HADOLINT = Path(sys.executable).with_name("hadolint")
ROWS = [{"length": 1.1}, {"length": 3.1}]


@pytest.fixture(scope="module")
def target(trained, built):
    """The target, with one release."""
    settings = {"port": free_port(), "cpu": 1, "memory": "512m", "restart": "unless-stopped"}
    target = open_target("docker", NAME, Project.find(trained).settings, settings)
    target.apply(Shipment(NAME, built.id, "1"))
    yield target
    target.delete()


def ask(url):
    body = json.dumps({"inputs": ROWS}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=100) as answer:
        return answer.read()


def is_ready(port):
    with suppress(OSError):
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).status == 200


def test_what_is_served_from_the_bundle_is_what_is_served_from_the_image(trained, target, tmp_path):
    bundle, port = bundle_project(Project.find(trained), warn=print), free_port()
    command = [sys.executable, "-m", "mlapp", "serve", "--bundle", bundle.folder, "--port", port]
    with running([str(each) for each in command], tmp_path, lambda: is_open(port)):
        here = ask(f"http://127.0.0.1:{port}")
    assert json.loads(here)["predictions"] == [0, 1]
    assert ask(target.status().url) == here


def test_predict_asks_what_is_deployed(target, root, mlapp):
    with (root / "mlapp.yaml").open("a") as settings:
        settings.write(f"\ntargets: {{docker: {{port: {target.settings.port}}}}}\n")
    (root / "new.csv").write_text("length\n1.1\n3.1\n")
    ran = mlapp("predict", "--target", "docker", "--features", "new.csv", cwd=root)
    assert (ran.err, json.loads(ran.out or "0")) == ("", [0, 1])
    assert json.loads(mlapp("predict", "--target", "docker", cwd=root).out)[:1] == [0]


def test_the_container_is_limited_and_can_write_nothing_but_tmp(target):
    with connect_image_engine() as client:
        container = client.containers.get(f"{NAME}-1")
        host = container.attrs["HostConfig"]
        wrote = container.exec_run(["python", "-c", "open('/tmp/a', 'w'); open('/app/a', 'w')"])
    assert (host["NanoCpus"], host["Memory"]) == (10**9, 512 * 1024**2)
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["RestartPolicy"]["Name"]) == (True, ["ALL"], "unless-stopped")
    assert b"Read-only file system: '/app/a'" in wrote.output


def test_the_largest_bodies_at_once_exceed_no_memory_limit(target):
    """On Kubernetes a process that does would end with all others of its container."""
    values = ",".join(["1"] * (Serve().max_body // 2 - 100))
    body = f'{{"inputs": {{"length": [{values}]}}}}'.encode()

    def ask_largest(size):
        part = body[: size - 3].rpartition(b",")[0] + b"]}}"
        request = urllib.request.Request(f"{url}/predict", part, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status
        except HTTPError as error:
            return error.code
        except OSError:  # the server has answered 413 or 503 before it has read the body
            return 0

    url = target.status().url
    with ThreadPoolExecutor(4) as pool:
        statuses = set(pool.map(ask_largest, [len(body), *[4_000_000] * 4] * 2))
    with connect_image_engine() as client:
        container = client.containers.get(f"{NAME}-1")
        state = container.attrs["State"]
        events = container.exec_run(["sh", "-c", "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/*oom_control"])
    assert statuses <= {200, 413, 503, 504, 0}
    assert re.findall(rb"^oom_kill (\d+)$", events.output, re.MULTILINE) == [b"0"]
    assert (state["OOMKilled"], container.attrs["RestartCount"]) == (False, 0)
    assert json.loads(ask(url))["predictions"] == [0, 1]


def test_it_is_replaced_and_rolled_back_under_load(target, built):
    failures, answers, stop = [], [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                answers.append(json.loads(ask(url))["predictions"])
            except OSError as error:
                failures.append(repr(error))
            time.sleep(0.005)

    url = target.status().url
    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    second = target.apply(Shipment(NAME, built.id, "1"))
    back = target.rollback()
    stop.set()
    for thread in threads:
        thread.join()
    with connect_image_engine() as client:
        restarts = client.containers.get(NAME).attrs["RestartCount"]
    assert (failures, restarts) == ([], 0)
    assert len(answers) > 20
    assert all(answer == [0, 1] for answer in answers)
    assert (second.number, back.number, back.note) == (2, 3, "rollback to 1")
    assert [each.state for each in target.releases()] == ["superseded", "superseded", "live"]
    status = target.status()
    assert (status.release.number, status.ready, status.problems) == (3, 1, ())
    command = ["docker", "inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", f"{NAME}-2", f"{NAME}-3"]
    policies = subprocess.run(command, capture_output=True, text=True).stdout.split()
    assert policies == ["no", "unless-stopped"], "what was replaced does not come back with the machine"


def test_a_proxy_that_ends_after_it_was_switched_starts_again(target, tmp_path):
    """As it must after a restart of the machine, too."""
    with connect_image_engine() as client:
        proxy = client.containers.get(NAME)
        proxy.exec_run(["python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)"])
        wait(lambda: client.containers.get(NAME).attrs["RestartCount"] == 1, tmp_path)
    wait(lambda: is_ready(target.settings.port), tmp_path)
    assert target.status().problems == ()


def test_a_release_that_does_not_start_leaves_the_one_before(target, tiny):
    live = target.status().release.number
    with pytest.raises(DeployError, match="no image nothing"):
        target.apply(Shipment(NAME, "nothing"))
    with pytest.raises(DeployError, match="The engine refused sha256:.*No command"):
        target.apply(Shipment(NAME, tiny(f"{NAME}-empty:1", file=b"1").id))
    assert target.status().release.number == live
    assert json.loads(ask(target.status().url))["predictions"] == [0, 1]


def test_logs_are_followed(target):
    assert any("answers at" in line.text for line in list(target.logs()))
    lines = list(islice(target.logs(follow=True, tail=2), 1))
    assert lines[0].replica.startswith(f"{NAME}-")


def test_a_compose_file_says_the_same(target, built, tmp_path):
    [file] = target.eject(Shipment(NAME, built.id, "1"), tmp_path, "compose")
    service = yaml.safe_load(file.read_text())["services"][NAME]
    assert (service["image"], service["read_only"], service["cpus"], service["mem_limit"]) == (
        built.id,
        True,
        1,
        "512m",
    )
    with pytest.raises(DeployError, match="already exists"):
        target.eject(Shipment(NAME, built.id, "1"), tmp_path, "compose")

    port = free_port()
    file.write_text(file.read_text().replace(f":{target.settings.port}:", f":{port}:"))
    try:
        compose(file, "up", "--detach")
        wait(lambda: is_ready(port), tmp_path)
        assert json.loads(ask(f"http://127.0.0.1:{port}"))["predictions"] == [0, 1]
    finally:
        compose(file, "down")


WORDS = """literal $HOME, ${HOME}:$PATH, "quoted" it's \\n `id` Grüße 漢字  """


@dataclass(frozen=True)
class Ejected:
    """A project whose Dockerfile has been ejected: the images before, by `docker build`, and by `mlapp build` after."""

    root: Path
    before: Image
    by_docker: str
    after: Image


@pytest.fixture(scope="module")
def ejected_project(trained, tmp_path_factory) -> Ejected:
    """One for all tests of a Dockerfile; its settings have variables that Docker could expand."""
    root = Path(shutil.copytree(trained, tmp_path_factory.mktemp("ejected") / "project"))
    settings = {"image": {"base": BASE, "python": "3.11", "env": {"WORDS": WORDS, "NONE": ""}}}
    (root / "mlapp.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    before = build_project_image(Project.find(root), tag=f"{NAME}-words:1")[0]
    bundle = bundle_project(Project.find(root), warn=print)
    eject_dockerfile(bundle, root, platform=None, progress=print, warn=print)
    with connect_image_engine() as client:
        made, _ = client.images.build(path=str(root), dockerfile="Dockerfile", rm=True)
    return Ejected(root, before, made.id, build_project_image(Project.find(root), tag=f"{NAME}-ejected:1")[0])


def inspect_config(image):
    with connect_image_engine() as client:
        return client.api.inspect_image(image)["Config"]


def lasting_labels(image):
    """The labels of an image without the fingerprints of its layers."""
    return {name: value for name, value in inspect_config(image)["Labels"].items() if "mlapp.layer." not in name}


def test_an_ejected_dockerfile_gives_what_the_build_gives(ejected_project, mlapp):
    printed = mlapp("build", "--print-dockerfile", cwd=ejected_project.root)
    changing = ("version", "revision", "created", "mlapp.bundle")
    lasting = [
        line for line in printed.out.splitlines() if "=" not in line or not any(name in line for name in changing)
    ]
    assert (ejected_project.root / "Dockerfile").read_text().splitlines() == lasting
    linted = subprocess.run([HADOLINT, "Dockerfile"], capture_output=True, text=True, cwd=ejected_project.root)
    assert (linted.returncode, linted.stdout) == (0, "")
    ours, theirs = inspect_config(ejected_project.before.id), inspect_config(ejected_project.by_docker)
    for key in ("User", "Entrypoint", "Healthcheck", "StopSignal", "WorkingDir", "ExposedPorts"):
        assert theirs[key] == ours[key], key


def test_an_environment_is_the_same_from_a_dockerfile(ejected_project, root, mlapp):
    """Nothing in it is expanded, by Docker or by Compose."""
    ours, theirs = inspect_config(ejected_project.before.id)["Env"], inspect_config(ejected_project.by_docker)["Env"]
    assert sorted(ours) == sorted(theirs)
    assert {f"WORDS={WORDS}", "NONE="} <= set(ours)
    target = open_target("docker", NAME, Project.find(ejected_project.root).settings, {"env": {"WORDS": WORDS}})
    service = target.render(Shipment(NAME, ejected_project.before.id))[0]["services"][NAME]
    assert service["environment"]["WORDS"] == WORDS.replace("$", "$$")

    settings = {"image": {"base": BASE, "python": "3.11", "env": {"WORDS": "two\nlines"}}}
    (root / "mlapp.yaml").write_text(yaml.safe_dump(settings))
    refused = mlapp("eject", "dockerfile", cwd=root)
    assert "Error: image.env: WORDS has a line break, which a Dockerfile cannot contain." in refused.err
    assert not (root / "Dockerfile").exists()


def test_a_build_is_the_same_after_its_dockerfile_is_ejected(ejected_project):
    before = lasting_labels(ejected_project.before.id)
    assert lasting_labels(ejected_project.after.id) == before
    assert lasting_labels(ejected_project.by_docker).items() <= before.items()
    assert "mlapp.bundle" not in lasting_labels(ejected_project.by_docker), (
        "a file that is kept would say what was true once"
    )


def test_the_projects_own_dockerfile_is_used(root, mlapp):
    (root / "Dockerfile").write_text('FROM scratch\nCOPY app.py /\nLABEL of="hers"\n')
    (root / ".gitignore").write_text(".mlapp/\ntrash\n")
    (root / "trash").write_bytes(bytes(1000))
    done = mlapp("build", "--tag", f"{NAME}-hers:1", cwd=root)
    assert done.code == 0, done.err
    labels = inspect_config(f"{NAME}-hers:1")["Labels"]
    assert (labels["of"], labels["mlapp.app"]) == ("hers", NAME)


def test_a_port_that_is_taken_leaves_the_release_before_where_it_was(target, trained, built):
    live, taken = target.status(), socket.create_server(("127.0.0.1", 0))
    moved = {"port": taken.getsockname()[1], "cpu": 1, "memory": "512m", "restart": "unless-stopped"}
    with taken, pytest.raises(DeployError, match=f"Port {moved['port']} of 127.0.0.1 is taken"):
        open_target("docker", NAME, Project.find(trained).settings, moved).apply(Shipment(NAME, built.id, "1"))
    assert json.loads(ask(live.url))["predictions"] == [0, 1]
    status = target.status()
    assert (status.release.number, status.ready, status.problems) == (live.release.number, 1, ())


def test_of_two_first_deploys_at_once_one_is_refused_and_the_next_works(trained, built):
    settings = {"port": free_port(), "restart": "no"}
    targets = [open_target("docker", f"{NAME}-twice", Project.find(trained).settings, settings) for _ in range(2)]
    refused = []

    def deploy(target):
        try:
            target.apply(Shipment(f"{NAME}-twice", built.id, "1"))
        except DeployError as error:
            refused.append(error.what)

    try:
        threads = [threading.Thread(target=deploy, args=(target,)) for target in targets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 1
        assert f"Another deploy of {NAME}-twice is in progress: it created the container {NAME}-twice-1" in refused[0]
        assert targets[0].apply(Shipment(f"{NAME}-twice", built.id, "1")).number == 2
        assert [each.state for each in targets[0].releases()] == ["superseded", "live"]
    finally:
        targets[0].delete()


def test_delete_leaves_nothing(trained, target):
    assert {NAME, f"{NAME}-1"} <= set(target.delete())
    assert target.releases() == []
    assert NAME not in subprocess.run(["docker", "ps", "-a"], capture_output=True, text=True).stdout
