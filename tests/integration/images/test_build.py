"""Images: reproducible, layered by frequency of change, run as nobody, and without files that are not the app's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from io import BytesIO

import docker.errors
import msgspec
import pytest

from mlapp import images, training
from mlapp.errors import MlappError
from mlapp.images.base import find_base, find_base_python
from mlapp.images.engine import connect_image_engine
from mlapp.images.image_spec import make_image_spec
from mlapp.images.layer_reuse import PACKAGES
from mlapp.images.project_image import build_project_image, bundle_project
from mlapp.project import Project
from tests.integration.images.conftest import NAME, SETTINGS
from tests.mounts import mount

pytestmark = [pytest.mark.xdist_group("docker"), pytest.mark.timeout(600)]


def file_of(image, path):
    """The content of a file of an image, which is not run."""
    with connect_image_engine() as client:
        container = client.api.create_container(image, ["true"])["Id"]
        try:
            stream, _ = client.api.get_archive(container, path)
            with tarfile.open(fileobj=BytesIO(b"".join(stream))) as archive:
                return archive.extractfile(archive.next()).read()
        finally:
            client.api.remove_container(container)


def test_the_same_project_gives_the_same_image_wherever_it_lies(root, built):
    assert build_project_image(Project.find(root))[0].id == built.id
    subprocess.run(["docker", "rmi", "--force", built.id], check=True, capture_output=True)
    assert build_project_image(Project.find(root))[0].id == built.id, "also when every layer is made again"


def test_a_change_of_code_changes_the_last_layer_alone(root, built):
    with (root / "app.py").open("a") as file:
        file.write("\n# changed\n")
    changed = build_project_image(Project.find(root))[0]
    assert changed.layers[:-1] == built.layers[:-1]
    assert changed.layers[-1] != built.layers[-1]


def test_what_a_killed_build_left_in_the_engine_is_removed_by_the_next_one(root, built):
    """Until a build ends, the engine has an image without a name with the lower layers."""
    layers = list(built.layers[:-1])
    config = {
        "architecture": built.platform.partition("/")[2],
        "os": "linux",
        "config": {"Labels": {PACKAGES: "{}"}},
        "rootfs": {"type": "layers", "diff_ids": layers},
    }
    listed = [{"Config": "config.json", "RepoTags": None, "Layers": [f"layer/{n}" for n, _ in enumerate(layers)]}]
    archive = BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in (("config.json", config), ("manifest.json", listed)):
            entry, text = tarfile.TarInfo(name), json.dumps(content).encode()
            entry.size = len(text)
            tar.addfile(entry, BytesIO(text))
    with connect_image_engine() as client:
        (left,) = client.images.load(archive.getvalue())
        build_project_image(Project.find(root))
        with pytest.raises(docker.errors.ImageNotFound):
            client.images.get(left.id)


def test_layers_that_the_engine_loses_during_a_build_are_sent_again(root):
    """Such as by `docker image prune`, after the build found them in an earlier image."""
    (root / "requirements.txt").write_text("pandas\ntoolz\n")  # no other test uses this package
    earlier = build_project_image(Project.find(root))[0]
    with (root / "app.py").open("a") as file:
        file.write("\n# changed\n")
    messages = []

    def remove_earlier_image(message):
        messages.append(message)
        if message == "load the image" and messages.count(message) == 1:
            with connect_image_engine() as client:  # an interrupted run of this test left images with the same layers
                layers = client.api.inspect_image(earlier.id)["RootFS"]["Layers"][:-1]
                for image in client.images.list():
                    if image.attrs["RootFS"]["Layers"][: len(layers)] == layers:
                        client.images.remove(image.id, force=True)

    changed = build_project_image(Project.find(root), progress=remove_earlier_image)[0]
    assert changed.layers[:-1] == earlier.layers[:-1]
    assert messages.count("a layer is missing in the engine: send all layers") == 1
    assert file_of(changed.id, "/app/code/app.py").endswith(b"# changed\n")


def test_it_runs_as_nobody_and_its_labels_describe_it(built):
    with connect_image_engine() as client:
        inspected = client.api.inspect_image(built.id)
    config, labels = inspected["Config"], inspected["Config"]["Labels"]
    assert config["User"] == "65532:65532"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][0] == "CMD", "no shell"
    assert config["Entrypoint"][0] == "/opt/venv/bin/python", "no shell"
    assert labels["org.opencontainers.image.version"] == "1"
    assert labels["org.opencontainers.image.created"] == inspected["Created"].replace(".000000000", "")
    assert b'"bomFormat"' in file_of(built.id, labels["mlapp.sbom"])


def test_nothing_of_the_environment_gets_in(root, built, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("MLAPP_SERVE__PORT", "8000")
    (root / ".env").write_text("TOKEN=hush")
    warned = []
    assert build_project_image(Project.find(root), warn=warned.append)[0].id == built.id
    assert warned == [
        ".env looks like a secret and is left out. To ship it, list it under image.include in mlapp.yaml."
    ]


def test_an_image_without_its_model_serves_the_version_that_is_mounted(root, built, tmp_path):
    """As KServe's storage initializer leaves it: the files in /mnt/models, the manifest from a ConfigMap."""
    project = Project.find(root)
    first = build_project_image(project, has_model=False)[0]
    second = project.store.put(training.run(project.app))
    assert build_project_image(project, has_model=False)[0].id == first.id, "a new version is no new image"
    assert first.layers[-2] != built.layers[-2]
    with pytest.raises(MlappError, match="Could not find the file"):
        file_of(first.id, f"/app/model/{NAME}")
    (tmp_path / "version.json").write_bytes(msgspec.json.encode(second.manifest))
    run = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--network", "none"]
    mounts = ["-v", f"{second.files}:/mnt/models:ro", "-v", f"{tmp_path / 'version.json'}:/etc/mlapp/version.json:ro"]
    names = ["-e", "MLAPP_MODEL_FOLDER=/mnt/models", "-e", "MLAPP_MODEL_MANIFEST=/etc/mlapp/version.json"]
    ask = "from mlapp import bundle; found = bundle.open('/app').served_project; print(found.app.load('2').predict("
    code = ["--entrypoint", "/opt/venv/bin/python", first.id, "-c", f"{ask}[{{'length': 3.0}}]))"]
    done = subprocess.run([*run, *mounts, *names, *code], capture_output=True, text=True)
    assert done.stdout.strip() == "[1]", done.stderr
    done = subprocess.run([*run, first.id], capture_output=True, text=True)
    assert done.returncode
    assert "contains no model" in done.stdout + done.stderr


def test_bytecode_is_there_and_holds_no_time(built):
    for path in ("/app/code/__pycache__/app", "/opt/venv/lib/python3.11/site-packages/pandas/__pycache__/__init__"):
        assert file_of(built.id, f"{path}.cpython-311.pyc")[4:8] == b"\x01\0\0\0", "PEP 552: unchecked, by hash"


def test_system_packages_are_a_layer_on_the_base(root, built):
    (root / "mlapp.yaml").write_text(SETTINGS.replace("}", ", system_packages: [hello]}"))
    with connect_image_engine() as client:
        made = find_base(client, make_image_spec(bundle_project(Project.find(root), warn=print)), "linux/amd64", print)
    assert made.layers[:-1] == list(built.layers[:1])
    command = ["docker", "run", "--rm", "--read-only", made.id, "hello", "--greeting=hi"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "hi\n"
    subprocess.run(["docker", "rmi", made.id], capture_output=True)


def test_an_interrupted_build_tags_nothing(root):
    (root / "app.py").write_text((root / "app.py").read_text() + "\n# interrupted\n")
    (root / "weights.bin").write_bytes(os.urandom(90 * 1024**2))
    command = [sys.executable, "-m", "mlapp", "build", "--tag", f"{NAME}-interrupted:1"]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "load the image" in line:
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in output
    listed = subprocess.run(["docker", "images", "-q", f"{NAME}-interrupted"], capture_output=True, text=True)
    assert listed.stdout == ""
    assert not list((root / ".mlapp" / "bundles").glob(".*")), "nor leaves anything behind"


def test_a_python_that_the_base_has_not_is_named(trained):
    with connect_image_engine() as client:
        base = find_base(
            client, make_image_spec(bundle_project(Project.find(trained), warn=print)), "linux/amd64", print
        )
        with pytest.raises(images.ImageError, match=r"has no Python 3\.12; it has 3\.11") as caught:
            find_base_python(client, base, "3.12")
    assert "image.python to '3.11'" in caught.value.todo


def test_without_an_engine_the_error_says_what_works_without(root, mlapp, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    done = mlapp("build", cwd=root)
    assert done.code == 1
    assert "No Docker engine answers at unix:///nowhere/docker.sock." in done.err
    assert "mlapp serve --bundle" in done.err


def test_a_user_without_access_to_the_engine_reads_that():
    if os.getuid():
        pytest.skip("only root can become another user")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            with connect_image_engine() as client:
                client.ping()
            os.write(writer, b"could")
        except images.EngineError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"You have no permission to use the Docker engine" in os.read(reader, 1000)


def test_a_full_disk_is_named(root, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    with mount(small, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        (root / "weights.bin").write_bytes(bytes(8 * 1024**2))
        with pytest.raises(MlappError, match="No space left on device") as caught:
            bundle_project(Project.find(root), output=small, warn=print)
        assert "Free disk space there" in caught.value.todo
        assert not list(small.iterdir()), "what was begun is gone"
        (root / "weights.bin").unlink()
        (root / "requirements.txt").write_text("pandas\nsix\n")  # what no image in the engine has
        bundle = bundle_project(Project.find(root), output=small, warn=print)
        with pytest.raises(MlappError, match="No space left on device"):
            images.build_images(bundle, tag=f"{NAME}-full:1")
    assert not subprocess.run(["docker", "images", "-q", f"{NAME}-full"], capture_output=True).stdout


def test_a_scanner_is_named_when_there_is_none_and_run_when_there_is(root, built, mlapp, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    done = mlapp("build", "--scan", cwd=root)
    assert (done.code, "Install one of trivy, grype" in done.err) == (1, True)
    grype = tmp_path / "grype"
    grype.write_text('#!/bin/sh\necho "scanned $*"\nexit ${FOUND:-0}\n')
    grype.chmod(0o755)
    done = mlapp("build", "--scan", cwd=root)
    assert done.code == 0
    assert f"scanned --quiet --fail-on high --only-fixed {built.reference}" in done.err
    monkeypatch.setenv("FOUND", "1")
    done = mlapp("build", "--scan", "--push", "--tag", f"127.0.0.1:9/team/{NAME}", cwd=root)
    assert (done.code, "grype found serious vulnerabilities" in done.err) == (1, True), "and is not pushed"
