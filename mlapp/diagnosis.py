"""What works on this machine and in this project, what is missing, and how to get it."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from mlapp import environment
from mlapp.errors import MlappError
from mlapp.project import Project

ENABLES = {
    "sklearn": "scikit-learn models",
    "parquet": "Parquet files",
    "docker": "mlapp build, mlapp deploy --target docker",
    "k8s": "mlapp deploy --target k8s",
    "flyte": "mlapp train --remote, schedules",
}
TOOLS = {
    "git": ("the commit in a version's manifest", "install git"),
    "uv": ("fast image builds", "pip install uv"),
    "docker": ("a look at images by hand; mlapp talks to the engine itself", "install Docker"),
    "kubectl": ("a look at the cluster by hand; mlapp talks to it itself", "install kubectl"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it works, what was found, and what to do where it does not."""

    what: str
    works: bool
    detail: str
    todo: str = ""


def examine(start: Path) -> list[Finding]:
    """Look at Python, the extras, the tools and the project of a folder."""
    return [
        Finding("python", True, environment.python_version()),
        *_extras(),
        *_tools(),
        *_project(start),
    ]


def _extras() -> list[Finding]:
    findings = []
    for extra, names in sorted(_requirements().items()):
        installed = environment.libraries(names)
        missing = [name for name in names if name not in installed]
        enables = ENABLES.get(extra, extra)
        if missing:
            detail = f"{', '.join(missing)} not installed; would enable {enables}"
            findings.append(Finding(extra, False, detail, f"pip install 'mlapp[{extra}]'"))
        else:
            listed = ", ".join(f"{name} {version}" for name, version in installed.items())
            findings.append(Finding(extra, True, f"{listed}: {enables}"))
    return findings


def _requirements() -> dict[str, list[str]]:
    """The distributions of each of mlapp's extras, from its own metadata."""
    found: dict[str, list[str]] = {}
    for requirement in importlib.metadata.requires("mlapp") or []:
        matched = re.match(r"([A-Za-z0-9._-]+).*;.*extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
        if matched and matched.group(2) != "all" and matched.group(1) != "mlapp":
            found.setdefault(matched.group(2), []).append(matched.group(1))
    return found


def _tools() -> list[Finding]:
    found = []
    for tool, (enables, todo) in TOOLS.items():
        path = shutil.which(tool)
        found.append(Finding(tool, bool(path), path or f"not found; would enable {enables}", "" if path else todo))
    return found


def _project(start: Path) -> list[Finding]:
    try:
        project = Project.find(start)
        app = project.app
    except MlappError as error:
        return [Finding("project", False, error.what, error.todo)]
    findings = [Finding("project", True, f"app '{app.name}' in {project.root}")]
    try:
        project.store.check_writable()
        numbers = project.store.numbers(app.name)
        findings.append(Finding("store", True, f"{len(numbers)} versions in {project.store.storage!r}"))
        if numbers:
            findings.append(_libraries(project, numbers[-1]))
    except MlappError as error:
        findings.append(Finding("store", False, error.what, error.todo))
    return findings


def _libraries(project: Project, number: int) -> Finding:
    manifest = project.store.manifest(project.name, number)
    found = environment.differences(manifest.libraries, manifest.python)
    if not found:
        return Finding("libraries", True, f"those that trained version {number}")
    return Finding(
        "libraries",
        False,
        f"version {number}: {'; '.join(map(str, found))}",
        "Install those versions, or train again here.",
    )
