"""Exports a version as a folder that MLServer serves.

FOLDER/
    model-settings.json   MLServer's settings of the model
    settings.json         MLServer's settings of the server; unused in a folder of several models
    mlapp_runtime.py      the runtime class that it names
    requirements.txt      requirements of MLServer's environment, without MLServer
    bundle/               code, model and dependencies, as in an image
    .gitignore            ignores the folder, so that neither git nor the project's next bundle takes it
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
from packaging.utils import parse_wheel_filename

from mlapp import distribution
from mlapp.bundle import Bundle
from mlapp.bundle.bundle import REQUIREMENTS, WHEELS
from mlapp.bundle.requirement_lines import parse_locked_requirement_lines
from mlapp.errors import UsageError
from mlapp.images.project_image import bundle_project
from mlapp.project import Project
from mlapp.reporting import Reporter
from mlapp.serving.protocols import tensors
from mlapp.temporary_folders import open_temporary_folder

SETTINGS = "model-settings.json"
SERVER_SETTINGS = "settings.json"
SERVER = {"debug": False, "parallel_workers": 0}
"""The runtime predicts in a thread of its own: MLServer's worker process would only copy each request. With uvloop 0.22
or newer that process of MLServer 1.7 does not even start.
"""
RUNTIME = "mlapp_runtime"
BUNDLE = "bundle"
OF_MLSERVER = frozenset(("fastapi", "starlette", "uvicorn"))
"""Packages that are not pinned: MLServer needs its own versions of them, and predictions do not need them."""

RUNTIME_SOURCE = f'''"""The class that MLServer loads: model-settings.json names it."""

try:
    from mlapp.mlserver import MlappRuntime
except ModuleNotFoundError as error:
    if error.name != "mlapp":
        raise
    raise ModuleNotFoundError(
        "MLServer's environment has no {distribution.NAME}. Run, in the folder of this file: "
        "pip install --requirement requirements.txt"
    ) from None


class Runtime(MlappRuntime):
    """Answers as `mlapp serve` does. Override `predict` here to change that."""
'''


def export_to_mlserver(
    project: Project, model: str, folder: Path, *, environment: str | None = None, warn: Reporter
) -> Bundle:
    """Write the folder atomically.

    Args:
        model: a version, an alias or `latest`.
        folder: absent, empty, or an earlier export, which is replaced except for its mlapp_runtime.py.
        environment: the key of `environments:` whose settings to serve with.
        warn: receives one line per warning.

    Returns:
        The bundle in it.

    Raises:
        UsageError: the folder holds something else. MissingExtraError: the `docker` extra is not installed.
        MlappError: the project cannot be bundled.
    """
    folder = folder.absolute()
    if folder.exists() and not _may_replace_mlserver_export(folder):
        raise UsageError(
            f"{folder} already exists, and `mlapp export` did not write it.", "Give another folder: --to FOLDER."
        )
    bundle = bundle_project(project, model=model, environment=environment, warn=warn)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open_temporary_folder("export", folder.parent) as temporary:
        staging = temporary / folder.name
        shutil.copytree(bundle.folder, staging / BUNDLE, symlinks=True)
        earlier = folder / f"{RUNTIME}.py"
        (staging / f"{RUNTIME}.py").write_text(
            earlier.read_text(encoding="utf-8") if earlier.is_file() else RUNTIME_SOURCE, encoding="utf-8"
        )
        (staging / REQUIREMENTS).write_text(_list_export_requirements(bundle), encoding="utf-8")
        settings = msgspec.json.encode(_make_mlserver_settings(bundle))
        (staging / SETTINGS).write_bytes(msgspec.json.format(settings) + b"\n")
        (staging / ".gitignore").write_text("*\n", encoding="utf-8")
        (staging / SERVER_SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(SERVER)) + b"\n")
        _replace_export_folder(folder, staging, temporary / "previous")
    return bundle


def _replace_export_folder(folder: Path, staging: Path, previous: Path) -> None:
    if folder.exists():
        folder.rename(previous)
    try:
        staging.rename(folder)
    except OSError:
        if previous.exists():
            previous.rename(folder)
        raise


def _may_replace_mlserver_export(folder: Path) -> bool:
    """Whether a folder is empty or holds an export."""
    if not folder.is_dir():
        return False
    return not any(folder.iterdir()) or ((folder / f"{RUNTIME}.py").is_file() and (folder / SETTINGS).is_file())


def _make_mlserver_settings(bundle: Bundle) -> dict[str, Any]:
    """The content of model-settings.json. The runtime makes batches, or MLServer if `serve.batch_wait` is set."""
    manifest, serve = bundle.model.manifest, bundle.settings.serve
    version = str(manifest.version)
    return {
        "name": bundle.manifest.app,
        "implementation": f"{RUNTIME}.Runtime",
        "platform": f"mlapp_{manifest.framework}",
        "versions": [version],
        "inputs": tensors.describe_tensors(manifest.schema.features, tensors.INPUTS),
        "outputs": tensors.describe_tensors(manifest.schema.predictions, tensors.OUTPUTS),
        "max_batch_size": serve.max_batch if manifest.batching else 1,
        "max_batch_time": serve.batch_wait if manifest.batching else 0,
        "parameters": {"uri": f"./{BUNDLE}", "version": version},
    }


def _list_export_requirements(bundle: Bundle) -> str:
    """The bundle's pinned requirements, without those that MLServer installs.

    Its wheels are named by version and folder: pip resolves a path in a requirement against the folder it runs in, and
    `--find-links` against the file's own.
    """
    lines = (bundle.folder / REQUIREMENTS).read_text(encoding="utf-8")
    wheels = sorted((bundle.folder / WHEELS).glob("*.whl")) if (bundle.folder / WHEELS).is_dir() else []
    requirements = [f"--find-links {BUNDLE}/{WHEELS}"] if wheels else []
    requirements += [
        f"{name}=={version}" for name, version, *_ in (parse_wheel_filename(wheel.name) for wheel in wheels)
    ]
    requirements += [
        str(package.requirement) for package in parse_locked_requirement_lines(lines) if package.name not in OF_MLSERVER
    ]
    return "".join(f"{line}\n" for line in requirements)
