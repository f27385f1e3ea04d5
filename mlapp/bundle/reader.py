"""Open a bundle in any location."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from mlapp import distribution
from mlapp.bundle import bundle
from mlapp.bundle.bundle import Bundle, BundleError, BundleManifest


def open_bundle(folder: Path | str) -> Bundle:
    """Open the bundle in `folder` and check its code and its conversion to ONNX against the manifest.

    The store checks the model. Imports no code.

    Raises:
        BundleError: it is not a bundle, is from a newer mlapp, or a file is missing or was changed.
    """
    place = Path(folder).resolve()
    manifest = _read_bundle_manifest(place / bundle.MANIFEST)
    for name, file in manifest.files.items():
        if name.startswith((f"{bundle.CODE}/", f"{bundle.MODEL}/{bundle.CONVERSIONS}/")) and file.link is None:
            _check_bundle_file(place / name, file.sha256, place)
    return Bundle(place, manifest)


def _read_bundle_manifest(path: Path) -> BundleManifest:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(
            f"{path.parent} is not a bundle: it has no {path.name}.", "Create one: mlapp build --bundle-only."
        ) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    try:
        raw = msgspec.json.decode(content)
        if isinstance(raw, dict) and int(raw.get("format", 0)) > bundle.FORMAT:
            raise BundleError(
                f"{path} is from a newer mlapp: format {raw['format']}, known is {bundle.FORMAT}.",
                f"Upgrade: pip install --upgrade {distribution.NAME}.",
            )
        return msgspec.convert(raw, BundleManifest)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is damaged: {error}", "Build the bundle again: mlapp build --bundle-only.") from None


def _check_bundle_file(path: Path, sha256: str, folder: Path) -> None:
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError:
        raise BundleError(
            f"{path.relative_to(folder)} is missing from {folder}.",
            "Build the bundle again: mlapp build --bundle-only.",
        ) from None
    if digest.hexdigest() != sha256:
        raise BundleError(
            f"{path.relative_to(folder)} in {folder} was changed after the bundle was created.",
            "Bundles are immutable: change the project, and create another bundle.",
        )
