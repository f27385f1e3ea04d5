"""A layer's tar is what tarfile would have written, byte for byte."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from mlapp.images.tar_layer import END, TIME, FolderLayer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "mlapp").write_text("#!/opt/venv/bin/python\n")
    (venv / "bin" / "mlapp").chmod(0o700)
    (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    (venv / "empty").touch()
    (venv / "größe.py").write_text("größe = 1\n")
    (venv / ("a" * 90) / ("b" * 90)).mkdir(parents=True)
    (venv / ("a" * 90) / ("b" * 90) / "long.py").write_text("far = 'below'\n")
    (venv / "large.so").write_bytes(bytes(range(256)) * 10_000)
    return venv


def test_it_is_the_tar_that_tarfile_writes(folder: Path) -> None:
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for place in (folder.parent, folder, *sorted(folder.rglob("*"))):
            name = Path("opt") / place.relative_to(folder.parent)
            entry = archive.gettarinfo(place, name.as_posix())
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = TIME, 0, 0, "", ""
            entry.mode = 0o777 if entry.issym() else 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            archive.addfile(entry, io.BytesIO(place.read_bytes()) if entry.isreg() else None)
    layer = FolderLayer(folder, "/opt/venv")
    made = b"".join(layer.stream_tar())
    assert made == expected.getvalue()[: len(made) - len(END)] + END
    assert layer.size == len(made)
    assert layer.digest == f"sha256:{hashlib.sha256(made).hexdigest()}"


def test_a_file_that_shrinks_meanwhile_is_named(folder: Path) -> None:
    layer = FolderLayer(folder, "/opt/venv")
    assert layer.size > 2_560_000
    os.truncate(folder / "large.so", 100)
    with pytest.raises(OSError, match=r"became shorter while it was read.*large\.so"):
        list(layer.stream_tar())
