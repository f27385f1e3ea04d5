"""Images in a real registry: digests, broken connections, several platforms, missing permissions."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress

import psutil
import pytest

from mlapp import images, training
from mlapp.errors import ConfigError
from mlapp.images import registry as registry_api
from mlapp.images.engine import connect_image_engine
from mlapp.images.project_image import build_project_image
from mlapp.project import Project
from tests.integration.images.conftest import APP, NAME, PASSWORD, USER, docker_config
from tests.servers import binary, free_port, is_open, running

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]


@contextmanager
def breaking_proxy(registry):
    """The address of a way to the registry that breaks off in the middle of a layer, then twice at the manifest.

    Its port begins with 403, which errors then hold: that is no refusal.
    """
    host, port = registry.host.split(":")
    broken = []

    def pass_on(source, sink, limit):
        with suppress(OSError):
            while chunk := source.recv(65536):
                limit -= len(chunk)
                at = "layer" if limit < 0 else "manifest" if chunk.startswith(b"PUT /v2/team/broken/manifests") else ""
                if at and broken.count(at) < {"layer": 1, "manifest": 2}[at]:
                    broken.append(at)
                    break
                sink.sendall(chunk)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    class Passing(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection((host, int(port))) as server:
                back = threading.Thread(target=pass_on, args=(server, self.request, 10**12))
                back.start()
                pass_on(self.request, server, 1_000_000)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", free_port()), Passing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", broken
        server.shutdown()


def manifest_of(registry, repository, reference):
    """A manifest as the registry holds it."""
    request = urllib.request.Request(f"http://{registry.host}/v2/{repository}/manifests/{reference}")
    request.add_header("Accept", "application/vnd.oci.image.index.v1+json")
    login = json.loads((registry.config / "config.json").read_text())["auths"][registry.host]["auth"]
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_only_what_the_registry_lacks_is_sent(root, built, registry, login):
    project, traffic = Project.find(root), registry.traffic

    def push(repository=f"team/{NAME}"):
        traffic.reset()
        image = build_project_image(project, tag=f"{registry.host}/{repository}", should_push=True)[0]
        return image, [layer["size"] for layer in manifest_of(registry, repository, image.digest)["layers"]]

    few = 30_000  # questions, a configuration and a manifest
    image, sizes = push()
    assert sum(sizes) < traffic.sent < sum(sizes) * 1.01 + few
    with connect_image_engine() as client:
        client.api.remove_image(image.pinned, noprune=True)
        assert client.images.pull(image.pinned).id == built.id
    push()
    assert traffic.sent < few
    assert all(method in ("GET", "HEAD", "PUT") for method, _ in traffic.requests), "no blob is begun"
    push(f"other/{NAME}")
    assert traffic.sent < few
    assert sum("mount=sha256" in path for _, path in traffic.requests) == len(sizes), "from the first repository"
    (root / "app.py").write_text(APP + "# changed\n")
    _, sizes = push()
    assert traffic.sent < sizes[-1] + few, "the code alone"
    project.store.put(training.run(project.app))
    _, sizes = push()
    assert traffic.sent < sum(sizes[-2:]) + few, "model and code"


def test_a_pushed_image_is_known_by_its_digest(root, built, registry, login, mlapp):
    done = mlapp("build", "--tag", f"{registry.host}/team/{NAME}", "--push", cwd=root)
    assert (done.code, done.out.startswith(f"{registry.host}/team/{NAME}@sha256:")) == (0, True)


def test_a_push_that_breaks_off_is_taken_up_again(registry, tiny, monkeypatch, tmp_path):
    with breaking_proxy(registry) as (host, broken):
        monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(tmp_path, host)))
        image = tiny(f"{host}/team/broken:1", file=os.urandom(4_000_000))
        messages = []
        [pushed] = images.push_images([image], progress=messages.append)
    assert broken == ["layer", "manifest", "manifest"]
    assert sum("was interrupted" in line for line in messages) == 2, "the engine itself goes on with a layer"
    assert manifest_of(registry, "team/broken", pushed.digest)["config"]["digest"] == image.id


def test_a_registry_that_is_down_is_named(tiny, monkeypatch):
    host = f"127.0.0.1:{free_port()}"
    monkeypatch.setattr(importlib.import_module("mlapp.images.push"), "MAX_ATTEMPTS", 2)
    with pytest.raises(images.ImageError, match=f"The registry {host} cannot be reached, tried 2 times"):
        images.push_images([tiny(f"{host}/team/down:1", file=b"1")])


def test_a_name_that_says_nowhere_is_refused_before_anything_is_built(root):
    with pytest.raises(ConfigError, match="its name has no registry") as caught:
        build_project_image(Project.find(root), should_push=True, progress=lambda message: pytest.fail(message))
    assert f"--tag registry.example.org/team/{NAME}" in caught.value.todo


def test_an_address_that_is_none_is_not_tried_again(tiny):
    messages = []
    with pytest.raises(images.ImageError, match="The registry registry.invalid cannot be reached"):
        images.push_images([tiny("registry.invalid/team/absent:1", file=b"1")], progress=messages.append)
    assert messages == ["push registry.invalid/team/absent:1"]


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_user_who_may_not_push_reads_how_to_log_in(registry, tiny, monkeypatch, tmp_path, password):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    if password:
        docker_config(tmp_path, registry.host, password=password)
    with pytest.raises(images.ImageError, match=f"The registry {registry.host} refused") as caught:
        images.push_images([tiny(f"{registry.host}/team/refused:1", file=b"1")])
    assert f"docker login {registry.host}" in caught.value.todo


def test_a_credential_helper_is_asked(registry, tiny, monkeypatch, tmp_path):
    helper = tmp_path / "docker-credential-tests"
    secret = json.dumps({"ServerURL": registry.host, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\necho '{secret}'\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "tests"}}))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert images.push_images([tiny(f"{registry.host}/team/helped:1", file=b"1")])[0].digest


def test_two_platforms_are_built_here_and_pushed_as_one_list(root, registry, login, tiny):
    python = {"usr__bin__python3.11": b"no base image is run in a build"}
    bases = [tiny(f"{registry.host}/base:1-{machine}", f"linux/{machine}", **python) for machine in ("amd64", "arm64")]
    listed, *pushed = images.push_images(bases)
    assert listed.reference == f"{registry.host}/base:1"
    assert [
        (entry["platform"]["architecture"], entry["digest"])
        for entry in manifest_of(registry, "base", listed.digest)["manifests"]
    ] == [("amd64", pushed[0].digest), ("arm64", pushed[1].digest)]

    (root / "mlapp.yaml").write_text(f"image: {{base: '{registry.host}/base:1', python: '3.11'}}\n")
    both = build_project_image(Project.find(root), tag=f"{NAME}-both:1", platform=["linux/amd64,linux/arm64"])
    assert [image.reference for image in both] == [f"{NAME}-both:1-amd64", f"{NAME}-both:1-arm64"]
    assert both[0].layers[-2:] == both[1].layers[-2:], "model and code are the same for both"
    with connect_image_engine() as client:
        assert client.api.inspect_image(both[1].id)["Architecture"] == "arm64"
        container = client.api.create_container(both[1].id, ["true"])["Id"]
        stream, _ = client.api.get_archive(container, "/opt/venv/lib/python3.11/site-packages/httptools")
        assert b"aarch64-linux-gnu.so" in b"".join(stream)
        client.api.remove_container(container)


def engine_address() -> str:
    """The address of this machine on the engine's own bridge.

    `docker network inspect bridge` lists no gateway until the engine has been restarted once, so ask the interface.
    """
    command = ["docker", "network", "inspect", "--format", '{{index .Options "com.docker.network.bridge.name"}}']
    bridge = subprocess.run([*command, "bridge"], capture_output=True, text=True, check=True).stdout.strip()
    (address,) = (each.address for each in psutil.net_if_addrs()[bridge] if each.family == socket.AF_INET)
    return address


@pytest.fixture
def afar(tmp_path):
    """A registry without TLS that is not on loopback, where the engine takes none on trust."""
    address = engine_address()
    port = free_port()
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "http": {"addr": f":{port}"},
    }
    (tmp_path / "config.yml").write_text(json.dumps(settings))
    command = [binary("docker-registry"), "serve", tmp_path / "config.yml"]
    with running(command, tmp_path, lambda: is_open(port, address)):
        yield f"{address}:{port}"


def test_a_registry_without_tls_is_recognized_and_the_error_names_the_engine_setting(afar, tiny, root, mlapp):
    with pytest.raises(images.ImageError, match=f"The registry {afar} cannot be trusted") as caught:
        images.push_images([tiny(f"{afar}/team/plain:1", file=b"1")])
    assert f'{{"insecure-registries": ["{afar}"]}}' in caught.value.todo
    (root / "mlapp.yaml").write_text(f"image: {{base: '{afar}/team/absent:1'}}\n")
    pulled = mlapp("build", cwd=root)
    assert f"Error: The registry {afar} cannot be trusted" in pulled.err
    with pytest.raises(images.ImageError, match=f"The registry {afar} cannot be trusted"):
        registry_api.find_registry_digest(f"{afar}/team/plain", "1")


def test_a_registry_that_the_engine_takes_without_tls_is_asked_without(afar, monkeypatch):
    monkeypatch.setattr(registry_api, "_is_insecure_registry", lambda host: host == afar)
    assert registry_api.find_registry_digest(f"{afar}/team/absent", "1") is None


def test_a_push_that_is_interrupted_leaves_no_tag_and_the_next_one_works(root, registry, login):
    (root / "weights.bin").write_bytes(os.urandom(60 * 1024**2))
    command = [sys.executable, "-m", "mlapp", "build", "--push", "--tag", f"{registry.host}/team/interrupted:1"]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("push "):
            break
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[1]
    assert (process.returncode, output) == (130, "")
    assert registry_api.find_registry_digest(f"{registry.host}/team/interrupted", "1") is None
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.stdout.startswith(f"{registry.host}/team/interrupted@sha256:"), done.stderr
