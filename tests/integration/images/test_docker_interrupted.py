"""A deploy on Docker that is killed at any step: the next one repairs what it left, and a delete removes everything."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import docker
import pytest

from mlapp.config import Settings
from mlapp.deploy import DeployError, Shipment, open_target
from mlapp.deploy.docker import rollout
from mlapp.images.engine import connect_image_engine
from tests.integration.images.conftest import BASE, NAME
from tests.servers import free_port

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]
APP = f"{NAME}-killed"
PROGRAM = (
    "import http.server, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit());"
    "http.server.test(http.server.SimpleHTTPRequestHandler, port=8000)"
)


class Killed(BaseException):
    """The deploying process is gone."""


@contextmanager
def killed_before_write(monkeypatch, number: int) -> Iterator[None]:
    """Let the engine receive only that many writes, and nothing after them: not even from handlers of errors.

    To create an exec instance is no write: before it is started, nothing has changed.
    """
    send, writes = docker.APIClient.send, 0

    def send_until_killed(client, request, **options):
        nonlocal writes
        writes += request.method != "GET" and not request.url.endswith("/exec")
        if writes > number:
            raise Killed
        return send(client, request, **options)

    with monkeypatch.context() as patched:
        patched.setattr(docker.APIClient, "send", send_until_killed)
        yield


class Later(datetime):
    """The clock when a deploy can no longer be in progress."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(hours=1)


@pytest.fixture(scope="module")
def shipment(engine, tmp_path_factory) -> Shipment:
    """A small image that answers HTTP and ends at once on SIGTERM."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "Dockerfile").write_text(
        f"FROM {BASE}\nLABEL mlapp.app={NAME}\nWORKDIR /tmp\nHEALTHCHECK NONE\n"
        "RUN ln -s $(command -v python3) /usr/local/bin/python\n"
        f'CMD ["python", "-c", "{PROGRAM}"]\n'
    )
    with connect_image_engine() as client:
        return Shipment(APP, str(client.images.build(path=str(folder), rm=True)[0].id))


@pytest.fixture
def open_at(monkeypatch) -> Iterator:
    """Open the target with a port. At the end, the app is deleted."""
    monkeypatch.setattr(rollout, "datetime", Later)
    port = free_port()

    def open_docker(port: int = port):
        return open_target("docker", APP, Settings(), {"port": port, "keep": 1})

    yield open_docker
    open_docker().delete()


def list_leftovers() -> dict[str, list[str]]:
    """The names of what the app has on the engine."""
    with connect_image_engine() as client:
        names = {
            "containers": [name[1:] for container in client.api.containers(all=True) for name in container["Names"]],
            "networks": [network["Name"] for network in client.api.networks()],
            "volumes": [volume["Name"] for volume in client.api.volumes()["Volumes"] or []],
        }
    return {kind: [name for name in names[kind] if name.startswith(APP)] for kind in names}


NOTHING: dict[str, list[str]] = {"containers": [], "networks": [], "volumes": []}


def list_running() -> set[str]:
    with connect_image_engine() as client:
        running = client.api.containers(filters={"label": f"mlapp.app={APP}"})
    return {name[1:] for container in running for name in container["Names"]}


def require_only_live(target) -> None:
    """Only the live server and the proxy run, and they answer. There is one network and one volume."""
    status = target.status()
    number = status.release.number
    assert (status.ready, status.problems) == (1, ())
    assert list_running() == {APP, f"{APP}-{number}"}
    left = list_leftovers()
    assert (left["networks"], left["volumes"]) == ([f"{APP}-mlapp"], [f"{APP}-state"])
    states = {release.number: release.state for release in target.releases()}
    assert [states[each] for each in states if each >= number] == ["live"]
    assert "pending" not in states.values()
    with urllib.request.urlopen(status.url, timeout=10) as answer:
        assert answer.status == 200


def is_killed(monkeypatch, writes: int, command: Callable[[], object]) -> bool:
    """Run a command that is killed before a write. Returns whether it was: False if it has no more writes."""
    with killed_before_write(monkeypatch, writes):
        try:
            command()
        except Killed:
            return True
        return False


def kill_deploy(monkeypatch, target, shipment, writes: int) -> bool:
    return is_killed(monkeypatch, writes, lambda: target.apply(shipment))


KILLED_PROGRAM = """
import os, signal, sys
from mlapp.config import Settings
from mlapp.deploy import Shipment, open_target

app, image, port, step = sys.argv[1:]


def report(text):
    if text.startswith(step):
        os.kill(os.getpid(), signal.SIGKILL)


open_target("docker", app, Settings(), {"port": int(port)}).apply(Shipment(app, image), progress=report)
"""


@pytest.mark.parametrize("step", ["start", "publish"])
def test_a_deploy_continues_at_once_after_a_killed_process(shipment, step):
    port = free_port()
    target = open_target("docker", APP, Settings(), {"port": port})
    arguments = [APP, shipment.image, str(port), step]
    try:
        killed = subprocess.run([sys.executable, "-c", KILLED_PROGRAM, *arguments])
        assert killed.returncode == -signal.SIGKILL
        target.apply(shipment)
        require_only_live(target)
    finally:
        target.delete()


def test_a_failed_deploy_says_what_is_live_and_what_it_kept(monkeypatch, open_at, shipment):
    impatient = open_target("docker", APP, Settings(), {"port": free_port(), "ready_timeout": 1.0})
    for number, live in ((1, "No release is live"), (3, "Release 2 stays live")):
        with monkeypatch.context() as patched, pytest.raises(DeployError) as failed:
            patched.setattr(rollout, "is_server_healthy", lambda server: False)
            impatient.apply(shipment)
        name = f"{APP}-{number}-failed"
        assert failed.value.todo.endswith(f" {live}; the container {name} is kept: docker logs {name}.")
        assert name in list_leftovers()["containers"]
        open_at().apply(shipment)


def test_a_first_deploy_can_be_killed_at_any_step(monkeypatch, open_at, shipment):
    target, writes = open_at(), 0
    while kill_deploy(monkeypatch, target, shipment, writes):
        assert target.status().release is None or writes >= 5
        if writes >= 4:  # there is a proxy
            target.delete()
            assert list_leftovers() == NOTHING, writes
            assert kill_deploy(monkeypatch, target, shipment, writes)
        target.apply(shipment)
        require_only_live(target)
        target.delete()
        assert list_leftovers() == NOTHING, writes
        writes += 1
    assert writes >= 7


def test_the_next_deploy_can_be_killed_at_any_step(monkeypatch, open_at, shipment):
    target, writes = open_at(), 0
    target.apply(shipment)
    while kill_deploy(monkeypatch, target, shipment, writes):
        with urllib.request.urlopen(target.status().url, timeout=10) as answer:
            assert answer.status == 200, "a release keeps serving"
        target.apply(shipment)
        require_only_live(target)
        writes += 1
    assert writes >= 7


def test_a_change_of_the_port_can_be_killed_at_any_step(monkeypatch, open_at, shipment):
    ports, writes = [free_port(), free_port()], 2  # the first two create and start the server, as with the same port
    open_at(ports[0]).apply(shipment)
    while kill_deploy(monkeypatch, open_at(ports[1]), shipment, writes):
        assert open_at(ports[1]).status().release is not None
        if writes % 2:
            ports.reverse()  # the next deploy continues to the new port; otherwise, it goes back
        open_at(ports[0]).apply(shipment)
        require_only_live(open_at(ports[0]))
        writes += 1
    assert writes >= 10


def test_a_delete_can_be_killed_at_any_step(monkeypatch, open_at, shipment):
    target, writes = open_at(), 0
    target.apply(shipment)
    while is_killed(monkeypatch, writes, target.delete):
        target.status()
        target.apply(shipment)
        require_only_live(target)
        writes += 1
    assert list_leftovers() == NOTHING
    assert writes >= 6
