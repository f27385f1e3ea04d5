"""Packages as layers: each large one on its own, loaded while the bytecode of the others is compiled."""

from __future__ import annotations

import io
import json
import tarfile
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from mlapp.images import docker_archive, package_groups
from mlapp.images.base import Base
from mlapp.images.image_spec import ImageSpec
from mlapp.images.layer_reuse import PACKAGES, parse_package_layers
from mlapp.images.package_groups import OTHERS, split_packages_into_groups
from mlapp.images.tar_layer import FolderLayer

PLAN = ImageSpec(base="python:3.11-slim", python="3.11", port=8000, grace=5, created=0)
BASE = Base(
    "sha256:1", "linux/amd64", {"Config": {}, "RootFS": {"Layers": ["b"]}, "Os": "linux", "Architecture": "amd64"}
)


def install(packages: Path, name: str, version: str, **files: int) -> None:
    """An installed package with files of these sizes; `__` in a name is a slash."""
    paths = {key.replace("__", "/"): size for key, size in files.items()}
    for path, size in paths.items():
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        (packages / path).write_bytes(bytes(size))
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [*paths, f"{info.name}/RECORD", "../../../bin/run"]
    (info / "RECORD").write_text("".join(f"{line},,\n" for line in lines))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(package_groups, "LARGE", 100)
    packages = tmp_path / "venv" / "lib" / "site-packages"
    install(packages, "scipy", "1.17", scipy__init=90, scipy__linalg__solve=60)
    install(packages, "torch_cuda", "2.9", nvidia__cuda__so=200)
    install(packages, "small", "0.1", nvidia__small__so=5, small=10)
    (tmp_path / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return tmp_path / "venv"


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_large_packages_get_a_layer_each_and_keep_their_paths(environment: Path) -> None:
    before = list_files(environment)
    groups = split_packages_into_groups(environment, environment / "lib" / "site-packages", environment.parent)
    assert [group.title for group in groups] == ["torch-cuda 2.9", "scipy 1.17", OTHERS]
    files = [list_files(group.folder) for group in groups]
    assert files[0] == {
        f"lib/site-packages/{name}" for name in ("nvidia/cuda/so", "torch_cuda-2.9.dist-info/RECORD")
    }, "a folder that two packages share is split"
    assert set.union(*files) == before
    assert sum(map(len, files)) == len(before)


def test_complete_layers_are_loaded_while_others_are_compiled(environment: Path) -> None:
    groups = split_packages_into_groups(environment, environment / "lib" / "site-packages", environment.parent)
    compiling: list[Future[None]] = [Future() for _ in groups]
    compiling[0].set_result(None)
    layers = [FolderLayer(group.folder, "/opt/venv", [done]) for group, done in zip(groups, compiling, strict=True)]
    loaded: list[tuple[list[str], dict[str, Any], Any]] = []
    removed: list[str] = []

    class Engine:
        @property
        def api(self) -> Engine:
            return self

        def load_image(self, archive: Any, quiet: bool) -> list[dict[str, str]]:
            with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as sent:
                content = {entry.name: sent.extractfile(entry).read() for entry in sent}  # type: ignore[union-attr]
            (listed,) = json.loads(content["manifest.json"])
            new = [name for name in content if name.startswith("layer/")]
            loaded.append((new, json.loads(content[listed["Config"]]), listed["RepoTags"]))
            for done in compiling:
                if not done.done():
                    done.set_result(None)
                    break
            return []

        def images(self, filters: dict[str, list[str]]) -> list[dict[str, str]]:
            return []  # no killed build has left one

        def remove_image(self, identity: str) -> None:
            removed.append(identity)

    labels = {PACKAGES: json.dumps({group.title: group.fingerprint for group in groups})}
    made = docker_archive.load_docker_image(Engine(), PLAN, BASE, layers, labels=labels, tag="digits:1")  # type: ignore[arg-type]
    assert [new for new, _, _ in loaded] == [["layer/0"], ["layer/1"], ["layer/2"]]
    assert [tags for _, _, tags in loaded] == [None, None, ["digits:1"]]
    assert len(removed) == 2
    assert made not in removed
    first, _, last = (config for _, config, _ in loaded)
    assert list(parse_package_layers(first["config"]["Labels"])) == [groups[0].title], "another build can go on from it"
    assert last["rootfs"]["diff_ids"] == ["b", *(layer.digest for layer in layers)]
    assert not any(group.folder.exists() for group in groups)


def test_a_layer_is_sent_while_the_engine_unpacks_the_one_below(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_archive, "ARCHIVE", 1)
    groups = split_packages_into_groups(environment, environment / "lib" / "site-packages", environment.parent)
    layers = [FolderLayer(group.folder, "/opt/venv") for group in groups]
    arrived = [Event() for _ in layers]
    unpacked: list[str] = []

    class Engine:
        @property
        def api(self) -> Engine:
            return self

        def load_image(self, archive: Any, quiet: bool) -> list[dict[str, str]]:
            received = b""
            for chunk in archive:
                received += chunk
                for number, event in enumerate(arrived):
                    if f"layer/{number}".encode() in chunk:
                        event.set()
            with tarfile.open(fileobj=io.BytesIO(received)) as sent:
                (layer,) = (name for name in sent.getnames() if name.startswith("layer/"))
            above = int(layer.partition("/")[2]) + 1
            assert above == len(layers) or arrived[above].wait(60)
            unpacked.append(layer)
            return []

        def images(self, filters: dict[str, list[str]]) -> list[dict[str, str]]:
            return []  # no killed build has left one

        def remove_image(self, identity: str) -> None:
            pass

    docker_archive.load_docker_image(Engine(), PLAN, BASE, layers, labels={}, tag="digits:1")  # type: ignore[arg-type]
    assert unpacked == ["layer/0", "layer/1", "layer/2"], "a layer is unpacked after those below it"
