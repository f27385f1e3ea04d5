"""The OCI layout for an engine with containerd's image store, without the layers that it has."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mlapp.images import layer_reuse, oci_archive
from mlapp.images.base import Base
from mlapp.images.image_spec import ImageSpec
from mlapp.images.layer_reuse import NOTHING
from mlapp.images.tar_layer import FolderLayer, Layer

PLAN = ImageSpec(base="python:3.11-slim", python="3.11", port=8000, grace=5, created=0)
KEYS = {
    "mlapp.layer.dependencies": "a",
    "mlapp.layer.packages": '{"other packages": "p"}',
    "mlapp.layer.model": "b",
}


def tar_of(content: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in content.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def blob(content: bytes) -> tuple[str, bytes]:
    return f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content


@dataclasses.dataclass
class Engine:
    """What of Docker's API is used: it keeps blobs, and lists images as they are inspected."""

    blobs: dict[str, bytes] = dataclasses.field(default_factory=dict)
    inspected: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    tags: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    sent: list[str] = dataclasses.field(default_factory=list)
    says: str = "Loaded image ID: x"

    @property
    def api(self) -> Engine:
        return self

    def pull(self) -> Base:
        """A base of one layer."""
        layer, data = blob(gzip.compress(tar_of({"bin/python3.11": b"elf"}), mtime=0))
        unpacked = f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}"
        config, text = blob(json.dumps({"rootfs": {"diff_ids": [unpacked]}}).encode())
        described = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(data)}
        manifest = {
            "config": {"digest": "sha256:" + config[-64:]},
            "layers": [{**described, "digest": "sha256:" + layer[-64:], "annotations": {"of": "nobody"}}],
        }
        name, document = blob(json.dumps(manifest).encode())
        self.blobs = {layer: data, config: text, name: document}
        identity = "sha256:" + name[-64:]
        inspected = {"Config": {}, "RootFS": {"Layers": [unpacked]}, "Os": "linux", "Architecture": "amd64"}
        self.inspected[identity] = inspected
        return Base(identity, "linux/amd64", inspected)

    def get_image(self, image: str) -> list[bytes]:
        exported = tar_of(self.blobs)
        return [exported[at : at + 1000] for at in range(0, len(exported), 1000)]

    def load_image(self, archive: Any, quiet: bool) -> list[dict[str, str]]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as sent:
            content = {entry.name: sent.extractfile(entry).read() for entry in sent}  # type: ignore[union-attr]
        assert json.loads(content.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        index = json.loads(content.pop("index.json"))
        for name, data in content.items():
            assert name == blob(data)[0], "a blob is named by what it is"
        self.sent = list(content)
        self.blobs |= content
        (target,) = index["manifests"]
        manifest = json.loads(self.of(target))
        config = json.loads(self.of(manifest["config"]))
        unpacked = [hashlib.sha256(gzip.decompress(self.of(layer))).hexdigest() for layer in manifest["layers"]]
        assert config["rootfs"]["diff_ids"] == [f"sha256:{each}" for each in unpacked]
        self.inspected[target["digest"]] = {
            "Config": config["config"],
            "RootFS": {"Layers": config["rootfs"]["diff_ids"]},
        }
        return [{"stream": self.says}]

    def of(self, described: dict[str, Any]) -> bytes:
        data = self.blobs["blobs/" + described["digest"].replace(":", "/")]
        assert len(data) == described["size"]
        return data

    def tag(self, image: str, repository: str, tag: str) -> None:
        self.tags.append((image, repository, tag))

    def images(self, filters: dict[str, list[str]]) -> list[dict[str, str]]:
        wanted = tuple(filters["label"][0].split("="))
        return [
            {"Id": identity}
            for identity, details in self.inspected.items()
            if wanted in (details["Config"].get("Labels") or {}).items()
        ]

    def inspect_image(self, image: str) -> dict[str, Any]:
        return self.inspected[image]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {"venv/lib.py": "x = 1\n" * 1000, "model/model.json": "{}", "app/code/app.py": "y = 2\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def layers_of(folder: Path) -> list[Layer]:
    """Layers of a copy of the folder: a load removes what it has read."""
    copy = shutil.copytree(folder, tempfile.mkdtemp(dir=folder.parent), dirs_exist_ok=True)
    return [FolderLayer(Path(copy, each.source), each.target) for each in PLAN.layers]


def test_it_is_complete_and_the_same_each_time(folder: Path) -> None:
    engine = Engine()
    base = engine.pull()
    made = oci_archive.load_oci_image(engine, PLAN, base, layers_of(folder), labels=KEYS, tag="localhost:5000/digits:1")
    assert engine.tags == [(made, "localhost:5000/digits", "1")]
    assert len(engine.sent) == len(("dependencies", "model", "code", "configuration", "manifest"))
    again = oci_archive.load_oci_image(engine, PLAN, base, layers_of(folder), labels=KEYS, tag="digits:2")
    assert again == made


def test_a_change_of_the_code_sends_the_code_alone(folder: Path) -> None:
    engine = Engine()
    base = engine.pull()
    oci_archive.load_oci_image(engine, PLAN, base, layers_of(folder), labels=KEYS, tag="digits:1")
    engine.get_image = None  # type: ignore[assignment]  # the base's blobs are known by now
    (folder / "app" / "code" / "app.py").write_text("y = 3\n")
    known = layer_reuse.find_reusable_layers(engine, base, "a", "b", oci_archive.BLOBS)
    layers = [*map(Layer, known.layers), *layers_of(folder)[2:]]
    oci_archive.load_oci_image(engine, PLAN, base, layers, labels=KEYS, tag="digits:2", engine_layers=known)
    assert len(engine.sent) == len(("code", "configuration", "manifest"))


def test_another_model_on_the_same_dependencies(folder: Path) -> None:
    engine = Engine()
    base = engine.pull()
    oci_archive.load_oci_image(engine, PLAN, base, layers_of(folder), labels=KEYS, tag="digits:1")
    (folder / "model" / "model.json").write_text("[]")
    changed = {**KEYS, "mlapp.layer.model": "c"}
    known = layer_reuse.find_reusable_layers(engine, base, "a", "c", oci_archive.BLOBS)
    layers = [*map(Layer, known.layers), *layers_of(folder)[1:]]
    oci_archive.load_oci_image(engine, PLAN, base, layers, labels=changed, tag="digits:2", engine_layers=known)
    assert len(engine.sent) == len(("model", "code", "configuration", "manifest"))
    assert layer_reuse.find_reusable_layers(engine, base, "z", "b", oci_archive.BLOBS) == NOTHING


def test_what_cannot_be_unpacked_is_an_error_and_gets_no_tag(folder: Path) -> None:
    engine = Engine(says="Error unpacking image digits:1: no space left on device")
    with pytest.raises(oci_archive.ImageError, match="no space left"):
        oci_archive.load_oci_image(engine, PLAN, engine.pull(), layers_of(folder), labels=KEYS, tag="digits:1")
    assert engine.tags == []


def test_a_large_layer_is_packed_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "large.so").write_bytes(bytes(range(256)) * 40_000)
    packed = io.BytesIO()
    layer = FolderLayer(tmp_path, "/opt/venv")
    described = oci_archive._pack_oci_layer(layer, packed)
    assert gzip.decompress(packed.getvalue()) == b"".join(FolderLayer(tmp_path, "/opt/venv").stream_tar())
    assert described["digest"] == f"sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}"
