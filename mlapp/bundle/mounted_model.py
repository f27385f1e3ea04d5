"""A model version that a platform mounts beside the image, such as KServe's storage initializer at /mnt/models.

`MLAPP_MODEL_FOLDER` is the folder of the version's files, `MLAPP_MODEL_MANIFEST` their manifest: as in any store, each
file is checked against its SHA-256 before it is loaded. Without a manifest, the files must be those of the version in
the image.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlapp.errors import StoreError
from mlapp.store import Manifest

FOLDER = "MLAPP_MODEL_FOLDER"
MANIFEST = "MLAPP_MODEL_MANIFEST"


def find_mounted_store(app: str, own: Path, version: int, environment: Mapping[str, str]) -> tuple[Path, int] | None:
    """A store with only the mounted version, and the version's number; None if nothing is mounted.

    Args:
        app: the app of the bundle.
        own: the bundle's own store.
        version: the version in it; 0 if it has none.

    Raises:
        StoreError: the folder does not exist, or its manifest cannot be read or belongs to another app.
    """
    place = environment.get(FOLDER)
    if not place:
        return None
    folder = Path(place)
    if not folder.is_dir():
        raise StoreError(
            f"{FOLDER} names {folder}, and there is no such folder.",
            "Check that the platform has downloaded the model: `mlapp status` and the log of its init container.",
        )
    if version == 0 and not environment.get(MANIFEST):
        raise StoreError(
            f"{FOLDER} names {folder}, but the version of its files is unknown.",
            f"Set {MANIFEST} to the version's manifest: this image has none.",
        )
    file = Path(environment.get(MANIFEST) or own / app / "versions" / f"{version:06}.json")
    try:
        content = file.read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"The manifest {file} cannot be read: {error}", f"Set {MANIFEST} to the version's.") from None
    if manifest.app != app:
        raise StoreError(
            f"The manifest {file} belongs to the app '{manifest.app}', but this image to '{app}'.",
            f"Correct {MANIFEST}.",
        )
    root = Path(tempfile.mkdtemp(prefix="mlapp-model-"))
    (root / app / "versions").mkdir(parents=True)
    (root / app / "versions" / f"{manifest.version:06}.json").write_bytes(content)
    (root / app / manifest.folder).parent.mkdir()
    (root / app / manifest.folder).symlink_to(os.path.realpath(folder), target_is_directory=True)
    (root / "store.json").write_bytes(msgspec.json.encode({"format": manifest.format}))
    return root, manifest.version
