"""Compares building and starting an image with `docker build` and pip, and with `bentoml containerize`.

    make bench-images

needs a Docker engine with BuildKit, and the base image that `.ci/run` builds. All builds are of the digits app with
scikit-learn, pandas and skops. Before measuring, all wheels are in the builder's cache, if it has one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.processes import mlapp
from benchmarks.serving.environments import install_environment
from mlapp.bundle.requirement_lines import parse_locked_requirement_lines
from tests.servers import free_port

BASE = "mlapp-test/python:3.11"
PIP_IMAGE = "mlapp-bench/python-pip:3.11"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PIP = f"""FROM {BASE}
COPY ca-certificates.crt {CERTIFICATES}
ENV SSL_CERT_FILE={CERTIFICATES}
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-pip \
 && rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED
"""
APP = """
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from mlapp import App

app = App("bench-digits", target="target")


@app.data_reader
def read() -> pd.DataFrame:
    return load_digits(as_frame=True).frame


@app.model
def build() -> LogisticRegression:
    return LogisticRegression(max_iter=1000)
"""
DOCKERFILE = f"""FROM {PIP_IMAGE}
COPY requirements.txt .
COPY wheels wheels
RUN --mount=type=cache,target=/root/.cache/pip pip install --quiet -r requirements.txt
COPY model /app/model
COPY code /app/code
"""
SERVICE = """
import bentoml


@bentoml.service
class Digits:
    @bentoml.api
    def predict(self, number: int) -> int:
        return number
"""
BENTO = """
service: "service:Digits"
include: ["service.py"]
python:
  packages: ["scikit-learn==1.9.1", "pandas==3.1.1", "skops", "six; python_full_version != '0.{changed}'"]
  lock_packages: false
docker:
  base_image: "{base}"
"""
DOCKER = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"


def run_command(command: list[str], folder: Path, **environ: str) -> str:
    """Run a command; returns its standard output.

    Raises:
        RuntimeError: the command failed; with the end of its output.
    """
    process = subprocess.run(command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(process.stdout + process.stderr)[-3000:]}")
    return process.stdout


def measure_seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def inspect_image(image: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(run_command(["docker", "image", "inspect", image], Path.cwd()))[0]
    return description


class MlappProject:
    """`mlapp build` of a project with a trained model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "requirements.txt").write_text("scikit-learn==1.9.1\npandas==3.1.1\nskops\n")
        (folder / "mlapp.yaml").write_text(f"image: {{base: '{BASE}'}}\n")
        (folder / ".gitignore").write_text(".mlapp/\n")
        run_command(mlapp("train"), folder)

    def build(self, **environ: str) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(run_command(mlapp("build", "--json"), self.folder, **environ))[0]
        return result

    def remove_builds(self) -> None:
        """Remove images, bundles and locks, as before the first build."""
        images = run_command(["docker", "images", "-q", "bench-digits"], self.folder).split()
        if images:
            run_command(["docker", "rmi", "--force", *dict.fromkeys(images)], self.folder)
        for name in ("bundles", "locks"):
            shutil.rmtree(self.folder / ".mlapp" / name, ignore_errors=True)

    def build_bundle(self) -> Path:
        return Path(run_command(mlapp("build", "--bundle-only"), self.folder).strip())


def require_new_layer(layer: str) -> None:
    """Check that no image in the engine has this layer, which would make a first build faster.

    Raises:
        SystemExit: names an image with the layer.
    """
    images = run_command(["docker", "images", "--quiet", "--no-trunc"], Path.cwd()).split()
    for image in dict.fromkeys(images):
        if layer in inspect_image(image)["RootFS"]["Layers"]:
            raise SystemExit(f"The engine has an image of the same dependencies already: docker rmi --force {image}")


def time_pip_build(bundle: Path, folder: Path) -> float:
    """Seconds of `docker build` with RUN pip install, with all wheels but no layers in the cache."""
    for name in ("code", "model", "wheels"):
        shutil.copytree(bundle / name, folder / name, dirs_exist_ok=True)
    shutil.copy(bundle / "requirements.txt", folder)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    command = [DOCKER, "build", "--quiet", "--no-cache", "--tag", "mlapp-bench/pip", "."]
    return measure_seconds(lambda: run_command(command, folder, DOCKER_BUILDKIT="1"))


def time_bentoml_build(program: Path, folder: Path) -> float:
    """Seconds of `bentoml containerize` after a change of the requirements; the layers below them are cached."""
    environ = {"BENTOML_HOME": str(folder.with_name("bento-home")), "BENTOML_DO_NOT_TRACK": "1", "DOCKER_BUILDKIT": "1"}
    environ["PATH"] = f"{Path(DOCKER).parent}{os.pathsep}{os.environ['PATH']}"
    (folder / "service.py").write_text(SERVICE)
    (folder / "bentofile.yaml").write_text(BENTO.format(base=PIP_IMAGE, changed=time.time_ns()))
    tag = run_command([str(program), "build", "--output", "tag"], folder, **environ).strip().removeprefix("__tag__:")
    command = [str(program), "containerize", tag, "--image-tag", "mlapp-bench/bento"]
    return measure_seconds(lambda: run_command(command, folder, **environ))


def measure_project_packages(bundle: Path, folder: Path) -> int:
    """Bytes of the project's own packages at the bundle's versions, with bytecode, as pip installs them."""
    locked = {
        each.name: each.version for each in parse_locked_requirement_lines((bundle / "requirements.txt").read_text())
    }
    pins = folder.parent / "pins.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in locked.items()))
    command = [
        *(sys.executable, "-m", "uv"),
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        "--python-version",
        "3.11",
        "--constraint",
        str(pins),
    ]
    run_command([*command, "--target", str(folder), "-r", str(bundle / "code" / "requirements.txt")], folder.parent)
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def run_container(image: str, port: int) -> Iterator[None]:
    command = [
        "docker",
        "run",
        "--detach",
        "--read-only",
        "--tmpfs",
        "/tmp",
        "--publish",
        f"127.0.0.1:{port}:8000",
        image,
    ]
    name = run_command(command, Path.cwd()).strip()
    try:
        yield
    finally:
        run_command(["docker", "rm", "--force", name], Path.cwd())


@contextmanager
def serve_on_host(bundle: Path, port: int) -> Iterator[None]:
    process = subprocess.Popen(
        mlapp("serve", "--bundle", str(bundle), "--port", str(port)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def time_until_ready(serving: Callable[[int], AbstractContextManager[None]]) -> float:
    """Seconds from the start to the first successful response of /readyz."""
    port = free_port()
    start = time.perf_counter()
    with serving(port):
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                    return time.perf_counter() - start
            except OSError:
                time.sleep(0.01)


def measure(rounds: int, peers: bool, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Rows of the table: measure, result, goal."""
    ours = MlappProject(Path(tempfile.mkdtemp(dir=folder)))
    uncompiled, first = measure_first_builds(ours, rounds, folder)
    image, bundle = ours.build(), ours.build_bundle()
    yield measure_code_change(ours, image, rounds, folder)
    yield ("first build, warm wheels", f"{first:.1f} s", "")
    yield ("the same, no bytecode compiled before", f"{uncompiled:.1f} s", "")
    for name, peer_seconds, goal in measure_peer_builds(bundle, rounds, folder) if peers else ():
        ratio, cold_ratio = first / peer_seconds, uncompiled / peer_seconds
        result = f"{peer_seconds:.1f} s: ours is {ratio:.2f} of it, {cold_ratio:.2f} uncompiled"
        yield (name, result, f"≤ {goal}")
    yield measure_image_size(image, bundle, folder)
    yield measure_container_start(image, bundle, rounds)
    yield ("build context", "none: layers go to the engine as they are", "only what is in the image")


def measure_first_builds(ours: MlappProject, rounds: int, folder: Path) -> tuple[float, float]:
    """Seconds of the first build without compiled bytecode, and median seconds of first builds with it."""
    layers = list(ours.build()["layers"])
    uv_cache = {"UV_CACHE_DIR": run_command([sys.executable, "-m", "uv", "cache", "dir"], folder).strip()}
    ours.remove_builds()
    require_new_layer(layers[1])
    uncompiled = measure_seconds(lambda: ours.build(XDG_CACHE_HOME=str(folder / "cold"), **uv_cache))
    times = []
    for _ in range(rounds):
        ours.remove_builds()
        times.append(measure_seconds(ours.build))
    return uncompiled, statistics.median(times)


def measure_code_change(ours: MlappProject, image: dict[str, Any], rounds: int, folder: Path) -> tuple[str, str, str]:
    """The row for a build after a change of the code."""
    times = []
    for number in range(rounds + 2):
        (ours.folder / "app.py").write_text(f"{APP}\n# {number}\n")
        times.append(measure_seconds(ours.build))
    changed = ours.build()
    before, after = list(image["layers"]), list(changed["layers"])
    differing = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    sent = run_command(
        ["docker", "history", "--human=false", "--format", "{{.Size}}", str(changed["id"])], folder
    ).split()[0]
    return (
        "code-only change → new image",
        f"{statistics.median(times):.2f} s; layer {differing} of {len(after)} differs, {int(sent):,} bytes",
        "≤ 1.5 s, the code layer alone",
    )


def measure_peer_builds(bundle: Path, rounds: int, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Name, median seconds of a build, and goal of each peer."""
    place = folder / "base"
    place.mkdir()
    (place / "Dockerfile").write_text(PIP)
    shutil.copy(CERTIFICATES, place)  # the index can be behind a proxy with its own certificate
    run_command([DOCKER, "build", "--quiet", "--tag", PIP_IMAGE, "."], place)
    place = folder / "pip"
    place.mkdir()
    time_pip_build(bundle, place)
    yield "docker build, RUN pip install", statistics.median(time_pip_build(bundle, place) for _ in range(rounds)), 0.25
    place = folder / "bento"
    place.mkdir()
    program = install_environment("bentoml") / "bentoml"
    time_bentoml_build(program, place)
    yield "bentoml containerize", statistics.median(time_bentoml_build(program, place) for _ in range(rounds)), 0.5


def measure_image_size(image: dict[str, Any], bundle: Path, folder: Path) -> tuple[str, str, str]:
    """The row for the size of the image."""
    size, of_base = int(image["size"]), int(inspect_image(BASE)["Size"])
    own = measure_project_packages(bundle, folder / "own")
    return (
        "image above base and the project's wheels",
        f"{(size - of_base - own) / 1e6:.0f} MB of {size / 1e6:.0f}; base {of_base / 1e6:.0f}, wheels {own / 1e6:.0f}",
        "≤ 60 MB",
    )


def measure_container_start(image: dict[str, Any], bundle: Path, rounds: int) -> tuple[str, str, str]:
    """The row for the time until a container is ready, compared with a process on the host."""
    inside, outside = [], []
    identity = str(image["id"])
    for _ in range(rounds + 1):
        outside.append(time_until_ready(lambda port: serve_on_host(bundle, port)))
        inside.append(time_until_ready(lambda port: run_container(identity, port)))
    there, here = statistics.median(inside[1:]), statistics.median(outside[1:])
    return ("container start → ready", f"{there:.2f} s; host {here:.2f} s: {there / here:.2f}", "≤ 1.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true", help="mlapp alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print("| measure | here | goal |\n|---|---|---|")
        for row in measure(options.rounds, not options.no_peers, Path(folder)):
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
