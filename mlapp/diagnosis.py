"""Reports what works on this machine and in this project, what is missing, and how to install it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from mlapp import distribution, plugins, provenance
from mlapp.config import Settings
from mlapp.deploy import CheckTarget, find_target_class, open_target, target_names
from mlapp.errors import MissingExtraError, MlappError
from mlapp.monitoring.inspection import open_place_for_inspection
from mlapp.project import Project
from mlapp.training.monitored_names import (
    find_idle_monitored_settings,
    find_unknown_monitored_columns,
    find_unknown_monitored_metrics,
)

ENABLES = {
    "docker": "mlapp build, mlapp deploy --target docker",
    "dynamodb": "data_reader.dynamodb",
    "files": "data_reader.files: Parquet, Arrow, Excel and JSON lines",
    "flask": "mlapp.flask: a model in a Flask site",
    "django": "mlapp.django: a model in a Django site",
    "aws": "AWS Lambda: deploying, and files in S3",
    "flyte": "mlapp train --remote, schedules",
    "grpc": "mlapp serve --grpc-port",
    "huggingface": "models and pipelines of transformers",
    "k8s": "mlapp deploy --target k8s",
    "keras": "Keras models, with a backend: torch, jax or tensorflow",
    "lightgbm": "LightGBM models",
    "mongo": "data_reader.mongo",
    "monitor": "the prediction log of mlapp serve, mlapp monitor",
    "onnx": "mlapp export --onnx, mlapp serve --runtime onnx, models that are ONNX files",
    "otel": "OpenTelemetry traces of mlapp serve, where OTEL_* is set",
    "parquet": "Parquet files",
    "redis": "data_reader.redis",
    "s3": "a model store at s3://, gs:// or az://",
    "sign": "mlapp models sign, store.verify",
    "sklearn": "scikit-learn models",
    "sql": "data_reader.sql: PostgreSQL, MySQL, SQLite, DuckDB and others that SQLAlchemy supports",
    "torch": "PyTorch models",
    "tune": "mlapp tune",
    "xgboost": "XGBoost models",
}
TOOLS = {
    "git": ("the commit in a version's manifest", "install git"),
    "uv": ("fast image builds", "pip install uv"),
    "kubectl": ("manual inspection of the cluster; mlapp itself does not use it", "install kubectl"),
}


@dataclass(frozen=True)
class Finding:
    """The result of one check: whether it passed, a detail, and what to do if it failed."""

    what: str
    works: bool
    detail: str
    todo: str = ""


def examine_machine(start: Path) -> list[Finding]:
    """Check Python, the extras, the tools, the deployment targets, and the project of a folder."""
    return [
        Finding("python", True, platform.python_version()),
        *_diagnose_foreign_packages(),
        *_diagnose_extras(),
        *_diagnose_plugins(),
        *_diagnose_tools(),
        *_diagnose_targets(start),
        *_diagnose_project(start),
    ]


def _diagnose_foreign_packages() -> list[Finding]:
    version = distribution.find_foreign_distribution()
    if version is None:
        return []
    detail = f"the unrelated package '{distribution.FOREIGN}' {version} is installed too, and overwrites files"
    return [Finding("mlapp", False, detail, distribution.make_repair_command())]


def _diagnose_extras() -> list[Finding]:
    findings = []
    for extra, names in sorted(_read_diagnosed_requirements().items()):
        installed = provenance.read_installed_versions(names)
        missing = [name for name in names if name not in installed]
        enables = ENABLES[extra]
        if missing:
            detail = f"{', '.join(missing)} not installed; would enable {enables}"
            findings.append(Finding(extra, False, detail, distribution.install_command(extra)))
        else:
            versions = ", ".join(f"{name} {version}" for name, version in installed.items())
            findings.append(Finding(extra, True, f"{versions}: {enables}"))
    return findings


def _read_diagnosed_requirements() -> dict[str, list[str]]:
    """The distributions of each extra that this Python needs, from mlapp's metadata."""
    installed = importlib.metadata.distribution(distribution.NAME)
    requirements = [Requirement(text) for text in installed.requires or []]
    extras = [extra for extra in installed.metadata.get_all("Provides-Extra") or [] if extra != "all"]
    return {
        extra: [
            requirement.name
            for requirement in requirements
            if requirement.marker
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        ]
        for extra in extras
    }


def _diagnose_plugins() -> list[Finding]:
    """The plugins that cannot be imported, with their packages."""
    return [Finding(name, False, error.what, error.todo) for name, error in plugins.find_broken_plugins()]


def _diagnose_tools() -> list[Finding]:
    findings = []
    for tool, (enables, todo) in TOOLS.items():
        path = shutil.which(tool)
        findings.append(Finding(tool, bool(path), path or f"not found; would enable {enables}", "" if path else todo))
    return findings


def _diagnose_targets(start: Path) -> list[Finding]:
    """Whether the engine or cluster of each target responds. Checks only targets whose extra is installed, and a
    platform only if mlapp.yaml has a section for it.
    """
    try:
        project = Project.find(start)
        app, settings = project.name, project.settings
    except MlappError:
        app, settings = "app", Settings()
    configured = {*settings.targets}.union(
        *(environment.get("targets", ()) for environment in settings.environments.values())
    )
    findings = []
    for name in target_names():
        try:
            if name not in configured and not find_target_class(name).checked_unconfigured:
                continue
            target = open_target(name, app, settings)
            if isinstance(target, CheckTarget):
                findings.append(Finding(f"target {name}", True, target.check()))
        except (MissingExtraError, plugins.PluginError):  # reported with the extras and the plugins
            continue
        except MlappError as error:
            findings.append(Finding(f"target {name}", False, error.what, error.todo))
    return findings


def _diagnose_project(start: Path) -> list[Finding]:
    try:
        project = Project.find(start)
        app = project.app
    except MlappError as error:
        return [Finding("project", False, error.what, error.todo)]
    findings = [Finding("project", True, f"app '{app.name}' in {project.root}")]
    try:
        project.store.check_writable()
        numbers = project.store.list_numbers(app.name)
        findings.append(Finding("store", True, f"{len(numbers)} versions in {project.store.storage!r}"))
        if numbers:
            findings.append(_diagnose_libraries(project, numbers[-1]))
            findings += _diagnose_monitored_names(project, numbers[-1])
    except MlappError as error:
        findings.append(Finding("store", False, error.what, error.todo))
    if project.settings.monitor.url is not None:
        findings.append(_diagnose_monitored_place(project))
    return findings


def _diagnose_monitored_place(project: Project) -> Finding:
    """Whether monitoring data can be written."""
    try:
        place = open_place_for_inspection(project)
        place.storage.check_writable()
    except MlappError as error:
        return Finding("monitor.url", False, error.what, error.todo)
    return Finding("monitor.url", True, repr(place))


def _diagnose_monitored_names(project: Project, number: int) -> list[Finding]:
    """The names in `monitor:` that the newest version does not have."""
    manifest, settings = project.store.manifest(project.name, number), project.settings.monitor
    errors = find_unknown_monitored_columns(settings, manifest.schema.features)
    errors += find_unknown_monitored_metrics(settings, manifest.headline)
    errors += find_idle_monitored_settings(settings)
    return [Finding("monitor", False, error.what, error.todo) for error in errors]


def _diagnose_libraries(project: Project, number: int) -> Finding:
    manifest = project.store.manifest(project.name, number)
    differences = provenance.compare_trained_libraries(manifest.libraries, manifest.python)
    if not differences:
        return Finding("libraries", True, f"those that trained version {number}")
    return Finding(
        "libraries",
        False,
        f"version {number}: {'; '.join(map(str, differences))}",
        "Install those versions, or train again here.",
    )
