"""A project, its image on a real engine, and a real registry that asks for a password: made once for all tests."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlapp import training
from mlapp.images.build import Image
from mlapp.images.engine import connect_image_engine
from mlapp.images.project_image import build_project_image
from mlapp.project import Project
from tests.core_install import leave_out
from tests.integration.images.traffic import Traffic, count_traffic
from tests.servers import binary, free_port, is_open, running

NAME = f"imaged-{secrets.token_hex(4)}"
"""The app. Test runs that share an engine must not replace each other's containers and images."""

BASE = "mlapp-test/python:3.11"
SETTINGS = f"image: {{base: '{BASE}', python: '3.11'}}\n"
USER, PASSWORD = "pusher", "s3cret"
BCRYPT = "$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK"
APP = """
import json

import pandas as pd

from mlapp import App

app = App("NAME", target="kind")


@app.data_reader
def read() -> pd.DataFrame:
    return pd.DataFrame({"length": [1.0, 1.2, 3.0, 3.3] * 5, "kind": [0, 0, 1, 1] * 5})


@app.model
def build() -> dict:
    return {"at": 2.0}


@app.trainer
def train(model: dict, features: pd.DataFrame, target: pd.Series) -> dict:
    return model


@app.evaluator
def evaluate(model: dict, features: pd.DataFrame, target: pd.Series) -> float:
    return 1.0


@app.saver
def save(model: dict, folder) -> None:
    (folder / "model.json").write_text(json.dumps(model))


@app.loader
def load(folder) -> dict:
    return json.loads((folder / "model.json").read_text())


@app.predictor
def predict(model: dict, features: pd.DataFrame) -> list[int]:
    return (features["length"] > model["at"]).astype(int).tolist()
""".replace("NAME", NAME)


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[None]:
    """The Docker engine, without anything of ours at the end."""
    command = ["docker", "image", "inspect", BASE]
    if not shutil.which("docker") or subprocess.run(command, capture_output=True).returncode:
        leave_out(f"needs a Docker engine and {BASE}: run scripts/ci/docker.sh")
    yield
    with connect_image_engine() as client:
        for image in client.api.images(filters={"label": f"mlapp.app={NAME}"}):
            client.api.remove_image(image["Id"], force=True)


@pytest.fixture(scope="session")
def trained(engine, tmp_path_factory) -> Path:
    """The folder of a project with a trained model; nothing else is in it than what tests may rely on."""
    root = tmp_path_factory.mktemp("project")
    (root / "app.py").write_text(APP)
    (root / "requirements.txt").write_text("pandas\n")
    (root / ".gitignore").write_text(".mlapp/\n")
    (root / "mlapp.yaml").write_text(SETTINGS)
    before = Path.cwd()
    project = Project.find(root)
    project.store.put(training.run(project.app))
    os.chdir(before)
    return root


@pytest.fixture(scope="session")
def built(trained) -> Image:
    """Its image."""
    return build_project_image(Project.find(trained))[0]


@pytest.fixture
def root(trained, tmp_path) -> Path:
    """A copy of the project, to change."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


@dataclass(frozen=True)
class Registry:
    """A registry on loopback; `config` is a docker configuration that may push there, `traffic` counts what does."""

    host: str
    config: Path
    traffic: Traffic


@pytest.fixture(scope="session")
def registry(tmp_path_factory) -> Iterator[Registry]:
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    (folder / "htpasswd").write_text(f"{USER}:{BCRYPT}\n")
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    command = [binary("docker-registry"), "serve", folder / "config.yml"]
    with running(command, folder, lambda: is_open(port)), count_traffic(port) as traffic:
        yield Registry(traffic.host, docker_config(folder / "docker", traffic.host), traffic)


def docker_config(folder: Path, *hosts: str, password: str = PASSWORD) -> Path:
    """The folder of a docker configuration with a login."""
    folder.mkdir(parents=True, exist_ok=True)
    login = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
    (folder / "config.json").write_text(json.dumps({"auths": dict.fromkeys(hosts, login)}))
    return folder


@pytest.fixture
def login(registry, monkeypatch) -> None:
    """Be logged in."""
    monkeypatch.setenv("DOCKER_CONFIG", str(registry.config))


@pytest.fixture(scope="session")
def tiny(engine) -> Callable[..., Image]:
    """Make an image of a few files, not to be run, for a platform."""

    def make(reference: str, platform: str = "linux/amd64", **files: bytes) -> Image:
        lines = f"FROM scratch\nCOPY files /\nLABEL mlapp.app={NAME}\n".encode()
        members = {"Dockerfile": lines, **{f"files/{name.replace('__', '/')}": files[name] for name in files}}
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        context.seek(0)
        with connect_image_engine() as client:
            made, _ = client.images.build(
                fileobj=context, custom_context=True, tag=reference, platform=platform, nocache=True, rm=True
            )
        return Image(reference, str(made.id), platform, 0, ())

    return make
