"""Adds the model's conversion to ONNX to a bundle, for `serve.runtime: onnx`.

With it, the bundle's server starts without the model's framework and without the converter. The bundle's requirements
do not contain the framework, unless the app itself imports it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from mlapp import provenance
from mlapp.bundle.bundle import CONVERSIONS, BundleError
from mlapp.project import Project
from mlapp.store import ModelVersion

RUNTIME = ("onnx", "onnxruntime")
"""Packages that can be required to run a conversion."""

TIMEOUT = 600
REPORT = "import sys; from mlapp.bundle import conversion; conversion.report_conversion_imports(*sys.argv[1:])"


def write_bundle_conversion(project: Project, version: ModelVersion, target: Path) -> dict[str, str]:
    """Write the conversion of a version to `target`, the bundle's model store, if `serve.runtime` is `onnx`.

    Returns:
        The libraries that the bundle needs for its model: name → version.

    Raises:
        ModelError: it cannot be converted, or its answers differ. MissingExtraError: the converter is not installed.
        BundleError: the app does not start with the conversion.
    """
    libraries = version.manifest.libraries
    if project.settings.serve.runtime != "onnx" or project.settings.store.verify != "none":
        return libraries
    from mlapp.onnx_conversion import find_onnx_conversion, load_onnx_conversion

    cache = project.root / ".mlapp" / "onnx"
    load_onnx_conversion(project.app, version, cache)
    file = find_onnx_conversion(project.app, version, cache)
    if file is None:
        return libraries
    (target / CONVERSIONS).mkdir()
    (target / CONVERSIONS / file.name).write_bytes(file.read_bytes())
    candidates = {**provenance.read_installed_versions(RUNTIME), **libraries}
    return _select_conversion_libraries(project, version, candidates)


def report_conversion_imports(root: str, environment: str, version: str) -> None:
    """Serve a few rows with the conversion; print the imported distributions as JSON in the last line."""
    from importlib.metadata import packages_distributions

    from mlapp.onnx_conversion import draw_conversion_rows, load_onnx_conversion

    project = Project.find(root, environment=environment or None)
    stored = project.store.get(project.name, int(version))
    predictor = load_onnx_conversion(project.app, stored, project.root / ".mlapp" / "onnx")
    predictor.predict(draw_conversion_rows(predictor.schema.features))
    modules = {name.partition(".")[0] for name in sys.modules}
    distributions = {each for name, owners in packages_distributions().items() if name in modules for each in owners}
    sys.stdout.write(f"\n{msgspec.json.encode(sorted(distributions)).decode()}\n")


def _select_conversion_libraries(
    project: Project, version: ModelVersion, libraries: Mapping[str, str]
) -> dict[str, str]:
    """The libraries that a new process imports when it serves the conversion."""
    command = [sys.executable, "-c", REPORT, str(project.root), project.environment or "", str(version.version)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)  # noqa: S603
    if process.returncode:
        reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise BundleError(
            f"The app cannot predict with its model converted to ONNX: {reason}",
            "Reproduce it with `mlapp serve --runtime onnx`, or set serve.runtime to native in mlapp.yaml.",
        )
    imported = msgspec.json.decode(process.stdout.splitlines()[-1], type=set[str])
    return {name: number for name, number in libraries.items() if name in imported}
