"""Counts the bytes of consecutive pushes to a registry: the first, the same image again, and after kinds of changes.

    python -m benchmarks.image_pushes

needs a Docker engine, the base image that `.ci/run` builds, and Debian's docker-registry.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.images import APP, MlappProject, run_command
from benchmarks.processes import mlapp
from tests.integration.images.traffic import Traffic, count_traffic
from tests.servers import binary, free_port, is_open, running


def measure_pushes(project: MlappProject, traffic: Traffic) -> Iterator[tuple[str, int, int, int]]:
    """Rows of the table: the change, bytes to the registry, uploaded blobs, mounted blobs."""
    app, requirements = project.folder / "app.py", project.folder / "requirements.txt"

    def push(label: str, repository: str = "team/digits") -> tuple[str, int, int, int]:
        traffic.reset()
        run_command(mlapp("build", "--push", "--tag", f"{traffic.host}/{repository}"), project.folder)
        uploaded = sum(method == "PUT" and "/blobs/" in path for method, path in traffic.requests)
        mounted = sum("mount=" in path for _, path in traffic.requests)
        return label, traffic.sent, uploaded, mounted

    yield push("first push")
    yield push("nothing")
    yield push("another repository of the registry", "other/digits")
    app.write_text(f"{APP}\n# changed\n")
    yield push("app.py")
    run_command(mlapp("train"), project.folder)
    yield push("the model")
    requirements.write_text(requirements.read_text() + "six\n")
    yield push("one small package more")
    requirements.write_text(requirements.read_text().replace("pandas==3.1.1", "pandas==3.1.0"))
    yield push("another version of pandas")


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, port = Path(place), free_port()
        storage = {"filesystem": {"rootdirectory": str(folder / "registry")}}
        settings = {"version": 0.1, "storage": storage, "http": {"addr": f"127.0.0.1:{port}"}}
        (folder / "registry.yml").write_text(json.dumps(settings))
        (folder / "project").mkdir()
        print("| changed | bytes sent | blobs uploaded | blobs mounted |\n|---|--:|--:|--:|")
        registry = running([binary("docker-registry"), "serve", folder / "registry.yml"], folder, lambda: is_open(port))
        with registry, count_traffic(port) as traffic:
            for label, sent, uploaded, mounted in measure_pushes(MlappProject(folder / "project"), traffic):
                print(f"| {label} | {sent:,} | {uploaded} | {mounted} |", flush=True)
        images = run_command(
            ["docker", "images", "--quiet", "--filter", "label=mlapp.app=bench-digits"], folder
        ).split()
        run_command(["docker", "rmi", "--force", *dict.fromkeys(images)], folder)


if __name__ == "__main__":
    main()
