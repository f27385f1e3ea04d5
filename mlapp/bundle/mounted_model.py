"""Finds a model version that a platform mounts into the container, as KServe's storage initializer does at /mnt/models.

`MLAPP_MODEL_FOLDER` is the folder of the version's files, `MLAPP_MODEL_MANIFEST` their manifest: as in any store, each
file is checked against its SHA-256 before it is loaded. Without a manifest, the files must be those of the version in
the image.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlapp.errors import StoreError
from mlapp.store import Manifest
from mlapp.store.numbered_names import format_number_name
from mlapp.temporary_folders import create_process_folder

FOLDER = "MLAPP_MODEL_FOLDER"
MANIFEST = "MLAPP_MODEL_MANIFEST"
INIT_MODE = "MODEL_INIT_MODE"
"""KServe sets this to `async` for a model in an OCI image: a sidecar creates the folder after the server starts."""
MOUNT_TIMEOUT = 60.0
"""Seconds to wait for that folder."""


def find_mounted_store(
    app: str, bundled_store: Path, version: int, environment: Mapping[str, str]
) -> tuple[Path, int] | None:
    """A store with only the mounted version, and the version's number; None if nothing is mounted.

    The store is a temporary folder with links, which this process removes when it exits.

    Args:
        app: the app of the bundle.
        bundled_store: the bundle's own store.
        version: the version in the bundle; 0 if it has none.

    Raises:
        StoreError: the folder does not exist, or its manifest cannot be read or belongs to another app.
    """
    place = environment.get(FOLDER)
    if not place:
        return None
    folder = Path(os.path.abspath(place))
    if environment.get(INIT_MODE) == "async":
        _wait_for_model_folder(folder)
    if not folder.is_dir():
        raise StoreError(
            f"{FOLDER} names {folder}, but that folder does not exist.",
            "Check that the platform has downloaded the model: `mlapp status` and the log of its init container.",
        )
    if version == 0 and not environment.get(MANIFEST):
        raise StoreError(
            f"{FOLDER} names {folder}, but the version of its files is unknown.",
            f"Set {MANIFEST} to the version's manifest: this image has none.",
        )
    file = Path(environment.get(MANIFEST) or bundled_store / app / "versions" / format_number_name(version))
    try:
        content = file.read_bytes()
        manifest = msgspec.json.decode(content, type=Manifest)
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise StoreError(
            f"The manifest {file} cannot be read: {error}", f"Set {MANIFEST} to the manifest of the mounted version."
        ) from None
    if manifest.app != app:
        raise StoreError(
            f"The manifest {file} belongs to the app '{manifest.app}', but this image is for '{app}'.",
            f"Set {MANIFEST} to a manifest of '{app}'.",
        )
    root = create_process_folder("model")
    (root / app / "versions").mkdir(parents=True)
    (root / app / "versions" / format_number_name(manifest.version)).write_bytes(content)
    (root / app / manifest.folder).parent.mkdir()
    (root / app / manifest.folder).symlink_to(folder, target_is_directory=True)
    (root / "store.json").write_bytes(msgspec.json.encode({"format": manifest.format}))
    return root, manifest.version


def _wait_for_model_folder(folder: Path) -> None:
    """Wait until `folder` exists, or until the timeout.

    KServe's folder is a link into the file system of another process, such as `/proc/7/root/models`. It must not be
    resolved, because the result `/models` does not exist in this container.
    """
    end = time.monotonic() + MOUNT_TIMEOUT
    while not folder.is_dir() and time.monotonic() < end:
        time.sleep(0.2)
