"""Records the libraries, Python and git state of a training, and compares them with the current ones."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec


class GitState(msgspec.Struct, frozen=True):
    """The project's commit, and whether files differ from it."""

    commit: str
    dirty: bool


@dataclass(frozen=True)
class Difference:
    """A library whose version differs from the training's; `here` is None if it is not installed."""

    library: str
    trained: str
    here: str | None

    def __str__(self) -> str:
        return f"{self.library} {self.here or 'is not installed'} here, {self.trained} in training"


def read_installed_versions(names: Iterable[str]) -> dict[str, str]:
    """The version of each installed distribution."""
    import importlib.metadata

    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def strip_build_version(version: str) -> str:
    """A version without its build label, such as `+cpu` on PyTorch's own index: PyPI has no such versions."""
    return version.partition("+")[0]


def compare_trained_libraries(trained: Mapping[str, str], python: str) -> list[Difference]:
    """Differences between a version's libraries and Python (minor version) and the installed ones."""
    here = read_installed_versions(trained)
    differences = [
        Difference(name, version, here.get(name)) for name, version in trained.items() if here.get(name) != version
    ]
    if python.split(".")[:2] != platform.python_version().split(".")[:2]:
        differences.append(Difference("python", python, platform.python_version()))
    return differences


def query_git(folder: Path, *arguments: str) -> str:
    """The output of git; empty if it fails or is not installed."""
    try:
        completed = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.strip() if completed.returncode == 0 else ""


def read_git_state(root: Path) -> GitState | None:
    """The git commit of the folder and whether it is dirty; None outside a repository or without git."""
    commit, dirty = "", False
    for line in query_git(root, "status", "--porcelain=v2", "--branch").splitlines():
        if line.startswith("# branch.oid "):
            commit = line.rpartition(" ")[2]
        dirty = dirty or not line.startswith("#")
    return None if commit in ("", "(initial)") else GitState(commit, dirty)
