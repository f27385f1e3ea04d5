"""The project's code as a reproducible archive, with the same files as a bundle."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from mlapp import config
from mlapp.bundle.project_files import find_project_files
from mlapp.config import Settings
from mlapp.project import Project
from mlapp.reporting import Reporter

EXCLUDED_SUFFIXES = (".py", ".pyc", ".md")


def archive_code(project: Project, warn: Reporter) -> tuple[bytes, str]:
    """The project's code as .tar.gz, and the SHA-256 of its content.

    Raises:
        BundleError: see `mlapp.bundle.project_files.find_project_files`.
    """
    root = project.root
    hasher = hashlib.sha256()
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as tar,
    ):
        required = (project.location.file.relative_to(root), Path(config.FILE))
        for path in _list_archived_files(root, project.settings, warn, required):
            member = tar.gettarinfo(str(root / path), path.as_posix())
            member.mtime, member.uid, member.gid, member.uname, member.gname = 0, 0, 0, "", ""
            hasher.update(f"{path.as_posix()}\0{member.mode}\0{member.linkname}\0".encode())
            if member.isreg():
                content = (root / path).read_bytes()
                hasher.update(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                tar.addfile(member)
    return archive.getvalue(), hasher.hexdigest()


def digest_archive_data(root: Path, settings: Settings) -> str:
    """SHA-256 of the data files in the archive, which a cached reader can read.

    Python files are excluded, because a task's cache depends on the functions that it runs
    (`mlapp.flyte.code_fingerprint`). Markdown is excluded too.
    """
    hasher = hashlib.sha256()
    for path in _list_archived_files(root, settings, lambda text: None):
        if path.suffix not in EXCLUDED_SUFFIXES and (root / path).is_file():
            hasher.update(f"{path.as_posix()}\0{(root / path).stat().st_size}\0".encode())
            with (root / path).open("rb") as file:
                while chunk := file.read(1 << 20):
                    hasher.update(chunk)
    return hasher.hexdigest()


def _list_archived_files(root: Path, settings: Settings, warn: Reporter, needed: tuple[Path, ...] = ()) -> list[Path]:
    leave_out = None if "://" in settings.store.url else (root / settings.store.url).resolve()
    return find_project_files(root, include=settings.image.include, leave_out=leave_out, needed=needed, warn=warn)


def write_code_archive(content: bytes, folder: Path, digest: str) -> Path:
    """Write the archive to a file; pyflyte-fast-execute unpacks files that end in .tar.gz."""
    file = folder / f"fast{digest[:32]}.tar.gz"
    file.write_bytes(content)
    return file
