"""Makes the bill of materials of the locked packages and the model, in CycloneDX 1.6."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from mlapp import distribution
from mlapp.bundle.requirement_lines import LockedPackage
from mlapp.store import Manifest


def make_sbom(
    app_name: str, model: Manifest | None, packages: Iterable[LockedPackage], own_version: str
) -> dict[str, Any]:
    """The document as plain data. It is reproducible: it has no timestamp, and its serial number is a content hash.

    Args:
        model: the model in the bundle, or None.
        own_version: mlapp's version, for a bundle that contains mlapp as a wheel instead of in the lock.
    """
    versions = {package.name: package.version for package in packages}
    versions.setdefault(distribution.NAME, own_version)
    components: list[dict[str, Any]] = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, version in sorted(versions.items())
    ]
    references = [component["bom-ref"] for component in components]
    component = {"type": "application", "bom-ref": f"app:{app_name}", "name": app_name}
    hashes: list[dict[str, str]] = []
    if model is not None:
        app = f"{model.app}@{model.version}"
        component.update({"bom-ref": f"app:{app}", "version": str(model.version)})
        hashes = [
            {"alg": "SHA-256", "content": digest} for digest in sorted({file.sha256 for file in model.files.values()})
        ]
        model_component = {
            "type": "machine-learning-model",
            "bom-ref": f"model:{app}",
            "name": model.model or model.app,
            "version": str(model.version),
            "hashes": hashes,
        }
        components.insert(0, model_component)
    subject = component["bom-ref"].removeprefix("app:")
    identity = uuid.uuid5(uuid.NAMESPACE_URL, " ".join([subject, *references, *map(str, hashes)]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "component": component,
            "tools": {"components": [{"type": "application", "name": "mlapp", "version": own_version}]},
        },
        "components": components,
        "dependencies": [{"ref": component["bom-ref"], "dependsOn": [each["bom-ref"] for each in components]}],
    }
