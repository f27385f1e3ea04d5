"""The bill of materials: CycloneDX 1.6, of the locked packages and of the model."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from mlapp import distribution
from mlapp.bundle.requirement_lines import LockedPackage
from mlapp.store import Manifest


def make_cyclonedx(model: Manifest, packages: Iterable[LockedPackage], own: str) -> dict[str, Any]:
    """The document, as plain data. It has no time of its own, and its serial number comes from what it lists.

    Args:
        own: mlapp's version, for a bundle that brings mlapp as a wheel and has it in no lock.
    """
    listed = {package.name: package.version for package in packages}
    listed.setdefault(distribution.NAME, own)
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
        }
        for name, version in sorted(listed.items())
    ]
    app = f"{model.app}@{model.version}"
    learned = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{app}",
        "name": model.model or model.app,
        "version": str(model.version),
        "hashes": [
            {"alg": "SHA-256", "content": digest} for digest in sorted({file.sha256 for file in model.files.values()})
        ],
    }
    references = [component["bom-ref"] for component in components]
    identity = uuid.uuid5(uuid.NAMESPACE_URL, " ".join([app, *references, *(str(h) for h in learned["hashes"])]))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{identity}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": f"app:{app}",
                "name": model.app,
                "version": str(model.version),
            },
            "tools": {"components": [{"type": "application", "name": "mlapp", "version": own}]},
        },
        "components": [learned, *components],
        "dependencies": [{"ref": f"app:{app}", "dependsOn": [learned["bom-ref"], *references]}],
    }
