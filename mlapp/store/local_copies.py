"""Local copies of a version's files: only files that are missing or have a different size are fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlapp.store.manifest import StoredFile


def iterate_missing_copies(
    folder: Path, files: Mapping[str, StoredFile], *, fresh: bool
) -> Iterator[tuple[str, StoredFile, Path]]:
    """Name, entry and target of each file to fetch, with the target's folder created.

    Args:
        fresh: remove all copies first.
    """
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    for name, stored in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != stored.size:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield name, stored, path
