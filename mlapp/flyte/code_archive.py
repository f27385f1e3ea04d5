"""The project's code as an archive: the same files as a bundle ships, and the same bytes for the same files."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

from mlapp import config
from mlapp.bundle.project_files import find_project_files
from mlapp.project import Project


def archive_code(project: Project, warn: Callable[[str], None]) -> tuple[bytes, str]:
    """The project's code as .tar.gz, and the SHA-256 of what is in it.

    Raises:
        BundleError: see `mlapp.bundle.project_files.find_project_files`.
    """
    root = project.root
    store = project.settings.store
    leave_out = None if "://" in store else (root / store).resolve()
    hasher = hashlib.sha256()
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as tar,
    ):
        for path in find_project_files(
            root,
            include=project.settings.image.include,
            leave_out=leave_out,
            needed=(project.location.file.relative_to(root), Path(config.FILE)),
            warn=warn,
        ):
            member = tar.gettarinfo(str(root / path), path.as_posix())
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            hasher.update(f"{path.as_posix()}\0{member.mode}\0{member.linkname}\0".encode())
            if member.isreg():
                content = (root / path).read_bytes()
                hasher.update(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                tar.addfile(member)
    return packed.getvalue(), hasher.hexdigest()


def write_archive(content: bytes, folder: Path, digest: str) -> Path:
    """The archive as a file; pyflyte-fast-execute unpacks what ends in .tar.gz."""
    file = folder / f"fast{digest[:32]}.tar.gz"
    file.write_bytes(content)
    return file
