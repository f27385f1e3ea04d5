"""Building and starting an image: mlapp beside `docker build` with pip, and beside `bentoml containerize`.

    make bench-images

needs a Docker engine with BuildKit, and the base image of scripts/ci/docker.sh. Every build is of the digits app with
scikit-learn, pandas and skops. Every wheel is in the builder's cache, where it has one, before anything is counted.
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
from benchmarks.serving.environments import prepare
from mlapp.bundle.requirement_lines import parse_locked_requirement_lines
from tests.servers import free_port

BASE = "mlapp-test/python:3.11"
WITH_PIP = "mlapp-bench/python-pip:3.11"
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
DOCKERFILE = f"""FROM {WITH_PIP}
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


def run(command: list[str], folder: Path, **environ: str) -> str:
    """What a command printed.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def inspect(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(["docker", "image", "inspect", image], Path.cwd()))[0]
    return found


class Ours:
    """`mlapp build` of a project with a trained model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "requirements.txt").write_text("scikit-learn==1.9.1\npandas==3.1.1\nskops\n")
        (folder / "mlapp.yaml").write_text(f"image: {{base: '{BASE}'}}\n")
        (folder / ".gitignore").write_text(".mlapp/\n")
        run(mlapp("train"), folder)

    def build(self, **environ: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run(mlapp("build", "--json"), self.folder, **environ))[0]
        return found

    def forget(self) -> None:
        """As before the first build: no image, bundle or lock."""
        listed = run(["docker", "images", "-q", "bench-digits"], self.folder).split()
        if listed:
            run(["docker", "rmi", "--force", *dict.fromkeys(listed)], self.folder)
        for name in ("bundles", "locks"):
            shutil.rmtree(self.folder / ".mlapp" / name, ignore_errors=True)

    def bundle(self) -> Path:
        return Path(run(mlapp("build", "--bundle-only"), self.folder).strip())


def require_unknown(layer: str) -> None:
    """Check that no image in the engine has this layer: the engine would skip it, and no build would be a first one.

    Raises:
        SystemExit: one has; names it.
    """
    known = run(["docker", "images", "--quiet", "--no-trunc"], Path.cwd()).split()
    for image in dict.fromkeys(known):
        if layer in inspect(image)["RootFS"]["Layers"]:
            raise SystemExit(f"The engine has an image of the same dependencies already: docker rmi --force {image}")


def with_pip(bundle: Path, folder: Path) -> float:
    """Seconds of `docker build` with RUN pip install, all wheels in its cache, no layer."""
    for name in ("code", "model", "wheels"):
        shutil.copytree(bundle / name, folder / name, dirs_exist_ok=True)
    shutil.copy(bundle / "requirements.txt", folder)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    command = [DOCKER, "build", "--quiet", "--no-cache", "--tag", "mlapp-bench/pip", "."]
    return seconds(lambda: run(command, folder, DOCKER_BUILDKIT="1"))


def with_bentoml(program: Path, folder: Path) -> float:
    """Seconds of `bentoml containerize` after the requirements changed: what is below them is in the engine's cache."""
    environ = {"BENTOML_HOME": str(folder.with_name("bento-home")), "BENTOML_DO_NOT_TRACK": "1", "DOCKER_BUILDKIT": "1"}
    environ["PATH"] = f"{Path(DOCKER).parent}{os.pathsep}{os.environ['PATH']}"
    (folder / "service.py").write_text(SERVICE)
    (folder / "bentofile.yaml").write_text(BENTO.format(base=WITH_PIP, changed=time.time_ns()))
    tag = run([str(program), "build", "--output", "tag"], folder, **environ).strip().removeprefix("__tag__:")
    command = [str(program), "containerize", tag, "--image-tag", "mlapp-bench/bento"]
    return seconds(lambda: run(command, folder, **environ))


def own_wheels(bundle: Path, folder: Path) -> int:
    """Bytes of the project's own packages alone at the bundle's versions, with bytecode, as pip leaves them."""
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
    run([*command, "--target", str(folder), "-r", str(bundle / "code" / "requirements.txt")], folder.parent)
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def container(image: str, port: int) -> Iterator[None]:
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
    name = run(command, Path.cwd()).strip()
    try:
        yield
    finally:
        run(["docker", "rm", "--force", name], Path.cwd())


@contextmanager
def on_host(bundle: Path, port: int) -> Iterator[None]:
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


def until_ready(serving: Callable[[int], AbstractContextManager[None]]) -> float:
    """Seconds from the start to the first 200 of /readyz."""
    port = free_port()
    began = time.perf_counter()
    with serving(port):
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
                    return time.perf_counter() - began
            except OSError:
                time.sleep(0.01)


def measure(rounds: int, peers: bool, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Rows of the table: what, measured, goal."""
    ours = Ours(Path(tempfile.mkdtemp(dir=folder)))
    made = ours.build()
    cold = str(folder / "cold")
    uv_cache = {"UV_CACHE_DIR": run([sys.executable, "-m", "uv", "cache", "dir"], folder).strip()}
    ours.forget()
    require_unknown(list(made["layers"])[1])
    uncompiled = seconds(lambda: ours.build(XDG_CACHE_HOME=cold, **uv_cache))
    first = []
    for _ in range(rounds):
        ours.forget()
        first.append(seconds(ours.build))
    image, bundle = ours.build(), ours.bundle()
    code = []
    for number in range(rounds + 2):
        (ours.folder / "app.py").write_text(f"{APP}\n# {number}\n")
        code.append(seconds(ours.build))
    changed = ours.build()
    before, after = list(image["layers"]), list(changed["layers"])
    differing = [at for at, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    sent = run(["docker", "history", "--human=false", "--format", "{{.Size}}", str(changed["id"])], folder).split()[0]
    yield (
        "code-only change → new image",
        f"{statistics.median(code):.2f} s; layer {differing} of {len(after)} differs, {int(sent):,} bytes",
        "≤ 1.5 s, the code layer alone",
    )
    pip, bento = [], []
    if peers:
        place = folder / "base"
        place.mkdir()
        (place / "Dockerfile").write_text(PIP)
        shutil.copy(CERTIFICATES, place)  # the index may be behind a proxy with a certificate of its own
        run([DOCKER, "build", "--quiet", "--tag", WITH_PIP, "."], place)
        place = folder / "pip"
        place.mkdir()
        with_pip(bundle, place)
        pip = [with_pip(bundle, place) for _ in range(rounds)]
        place = folder / "bento"
        place.mkdir()
        program = prepare("bentoml") / "bentoml"
        with_bentoml(program, place)
        bento = [with_bentoml(program, place) for _ in range(rounds)]
    yield ("first build, warm wheels", f"{statistics.median(first):.1f} s", "")
    yield ("the same, no bytecode compiled before", f"{uncompiled:.1f} s", "")
    for name, times, goal in (("docker build, RUN pip install", pip, 0.25), ("bentoml containerize", bento, 0.5)):
        if times:
            ratio = statistics.median(first) / statistics.median(times)
            cold_ratio = uncompiled / statistics.median(times)
            told = f"{statistics.median(times):.1f} s: ours is {ratio:.2f} of it, {cold_ratio:.2f} uncompiled"
            yield (name, told, f"≤ {goal}")
    size, of_base = int(image["size"]), int(inspect(BASE)["Size"])
    own = own_wheels(bundle, folder / "own")
    yield (
        "image above base and the project's wheels",
        f"{(size - of_base - own) / 1e6:.0f} MB of {size / 1e6:.0f}; base {of_base / 1e6:.0f}, wheels {own / 1e6:.0f}",
        "≤ 60 MB",
    )
    inside, outside = [], []
    identity = str(image["id"])
    for _ in range(rounds + 1):
        outside.append(until_ready(lambda port: on_host(bundle, port)))
        inside.append(until_ready(lambda port: container(identity, port)))
    there, here = statistics.median(inside[1:]), statistics.median(outside[1:])
    yield ("container start → ready", f"{there:.2f} s; host {here:.2f} s: {there / here:.2f}", "≤ 1.2")
    yield ("build context", "none: layers go to the engine as they are", "only what is in the image")


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
