"""Writes the pipeline files of a project from the texts in `files/`. `@NAME@` is a placeholder for project values."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mlapp import distribution
from mlapp.app_location import locate_app
from mlapp.config import FILE, Settings
from mlapp.errors import UsageError, suggest_nearest
from mlapp.project import Project
from mlapp.provenance import query_git

FORMATS = ("github", "gitlab")
FILES = Path(__file__).parent / "files"
SCRIPTS = ".ci"
"""Folder in the project for the scripts that both CI systems run."""

UNQUOTED = {
    "DIRECTORY": "folder",
    "BRANCH": "branch",
    "PYTHON": "version of Python",
    "STAGING": "target",
    "PRODUCTION": "target",
}
"""Descriptions of the values that the files contain without quotes."""

NOT_CLUSTERS = frozenset({"docker", "flyte"})
ACTIONS = {
    "CHECKOUT": "3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1",
    "SETUP_PYTHON": "5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0",
    "AWS_CREDENTIALS": "e6de054238d6b7531b4efff3b6587d9aade6a06c # v6.2.3",
    "COSIGN": "6f9f17788090df1f26f669e9d70d6ae9567deba6 # v4.1.2",
}
"""GitHub actions, pinned by commit because a tag can be moved."""


def write_pipeline_files(project: Project, format: str, folder: Path | None = None) -> list[Path]:
    """Write the files of one CI system and return their paths. The user owns them afterwards.

    Args:
        format: one of `FORMATS`.
        folder: the root of the repository; by default git's, otherwise the project's folder.

    Raises:
        UsageError: an unknown format, or an existing file with other content.
    """
    check_ci_pipeline_format(format)
    root = project.root.resolve()
    repository = (folder.resolve() if folder else _find_pipeline_repository(root)) or root
    if folder and not root.is_relative_to(repository):  # the user copies the files into a repository later
        root = repository
    directory = root.relative_to(repository).as_posix()
    values = _collect_pipeline_values(project, directory, repository)
    _refuse_unusable_pipeline_names(values)
    texts = {
        path: _fill_pipeline_placeholders(text, values)
        for path, text in _list_ci_pipeline_texts(format, directory, values)
    }
    for path, text in texts.items():
        file = repository / path
        if file.exists() and file.read_text(encoding="utf-8") != text:
            raise UsageError(
                f"{file} already exists with different content.", "Remove it, or choose another folder with --to."
            )
    written = []
    for path, text in texts.items():
        file = repository / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755 if file.suffix == ".sh" else 0o644)
        written.append(file)
    return written


def check_ci_pipeline_format(format: str) -> None:
    """Raise UsageError for an unknown format."""
    if format not in FORMATS:
        raise UsageError(
            f"There is no CI system '{format}'.{suggest_nearest(format, FORMATS)}", f"Give one of {', '.join(FORMATS)}."
        )


def add_pipeline_environments(project: Project) -> None:
    """Add `staging` and `production`, each with a namespace, to the mlapp.yaml of a new project."""
    slug, target = _make_pipeline_slug(project.name), find_pipeline_target(project.settings)
    with (project.root / FILE).open("a", encoding="utf-8") as file:
        file.write(
            "environments: # what the pipelines deploy to\n"
            f"  staging: {{targets: {{{target}: {{namespace: {slug}-staging}}}}}}\n"
            f"  production: {{targets: {{{target}: {{namespace: {slug}}}}}}}\n"
        )


def find_pipeline_target(settings: Settings) -> str:
    """The target that a pipeline deploys to: the first cluster target in mlapp.yaml, otherwise `k8s`."""
    names = [*settings.targets]
    for environment in settings.environments.values():
        names += (environment or {}).get("targets") or {}
    return next((name for name in names if name not in NOT_CLUSTERS), "k8s")


def _list_ci_pipeline_texts(format: str, directory: str, values: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Each file's path in the repository, and its text with placeholders."""
    start = "" if directory == "." else f"{directory}/"
    for script in sorted((FILES / "scripts").glob("*.*")):  # not the bytecode that pip writes beside registry.py
        yield f"{start}{SCRIPTS}/{script.name}", script.read_text(encoding="utf-8")
    if format == "gitlab":
        yield f"{start}.gitlab-ci.yml", (FILES / "gitlab" / "gitlab-ci.yml").read_text(encoding="utf-8")
        return
    yield f".github/actions/{values['SLUG']}/action.yml", (FILES / "github" / "action.yml").read_text(encoding="utf-8")
    for name in ("pull-request", "deploy", "nightly"):
        text = (FILES / "github" / f"{name}.yml").read_text(encoding="utf-8")
        yield f".github/workflows/{values['SLUG']}-{name}.yml", text


def _collect_pipeline_values(project: Project, directory: str, repository: Path) -> dict[str, str]:
    settings, name = project.settings, project.name
    slug = _make_pipeline_slug(name)
    target = find_pipeline_target(settings)
    in_subfolder = directory != "."
    target_options = {
        key: f"--target {target} --env {key}" if key in settings.environments else f"--target {target}{default_options}"
        for key, default_options in (("staging", f" --namespace {slug}-staging"), ("production", ""))
    }
    return {
        **ACTIONS,
        "NAME": name,
        "SLUG": slug,
        "PYTHON": settings.image.python or f"{sys.version_info.major}.{sys.version_info.minor}",
        "PACKAGE": distribution.NAME,
        "EXTRAS": ",".join(_list_ci_pipeline_extras(settings)),
        "SMALL": "-p limit=500" if _has_pipeline_reader_limit(project) else "",
        "TRAIN": "--remote " if "flyte" in settings.targets else "",
        "STAGING": target_options["staging"],
        "PRODUCTION": target_options["production"],
        "BRANCH": _find_pipeline_branch(repository),
        "DIRECTORY": directory,
        "ROOT": f"{directory}/" if in_subfolder else "",
        "CHANGE_DIRECTORY": f"\n    - cd {directory}" if in_subfolder else "",
        "PATHS": f"\n    paths: ['{directory}/**', '.github/**']" if in_subfolder else "",
        "SCRIPTS": SCRIPTS,
    }


def _refuse_unusable_pipeline_names(values: dict[str, str]) -> None:
    """Refuse values with special characters of the shell or YAML, because the files contain them without quotes."""
    for key, description in UNQUOTED.items():
        if not re.fullmatch(r"[\w./@ =-]*" if key in ("STAGING", "PRODUCTION") else r"[\w./@-]+", values[key]):
            raise UsageError(
                f"The {description} {values[key]!r} cannot be used in a pipeline's files.",
                "Rename it: use only letters, digits, '.', '_', '-' and '/'.",
            )


def _make_pipeline_slug(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")


def _list_ci_pipeline_extras(settings: Settings) -> list[str]:
    scheme = settings.store.url.partition("://")[0]
    in_bucket = "://" in settings.store.url and scheme != "file"
    extras = ["docker", "k8s", "sign"]
    extras += ["s3"] if in_bucket or ".dkr.ecr." in (settings.image.name or "") else []
    return extras + (["flyte"] if "flyte" in settings.targets else [])


def _has_pipeline_reader_limit(project: Project) -> bool:
    """Whether the data reader declares a parameter `limit`. Reads its source without running it."""
    file = locate_app(project.settings.app, project.root).file
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            decorators = [
                decorator.func if isinstance(decorator, ast.Call) else decorator for decorator in node.decorator_list
            ]
            if any(
                isinstance(decorator, ast.Attribute) and decorator.attr == "data_reader" for decorator in decorators
            ):
                return any(argument.arg == "limit" for argument in (*node.args.args, *node.args.kwonlyargs))
    return False


def _find_pipeline_repository(folder: Path) -> Path | None:
    root = query_git(folder, "rev-parse", "--show-toplevel")
    return Path(root).resolve() if root else None


def _find_pipeline_branch(repository: Path) -> str:
    head = query_git(repository, "symbolic-ref", "--short", "refs/remotes/origin/HEAD")
    return head.removeprefix("origin/") or "main"


def _fill_pipeline_placeholders(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match[1]], text)
