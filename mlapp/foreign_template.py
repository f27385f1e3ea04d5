"""Fetches third-party templates into a temporary folder, and finds their code before any of it runs.

A template's hooks and Jinja extensions run with the user's rights. A template without them is rendered in Jinja's
sandbox, so that no name or file of it calls Python, and it can write only inside the new project.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlapp.errors import UsageError
from mlapp.temporary_folders import open_temporary_folder

HOOKS = ("pre_prompt", "pre_gen_project", "post_gen_project")


@contextmanager
def fetch_template(template: str) -> Iterator[Path]:
    """The folder of a template at a URL, during the block.

    Raises:
        UsageError: it cannot be fetched, is not a template, or has a link to a file outside it.
    """
    from cookiecutter.config import get_user_config
    from cookiecutter.exceptions import CookiecutterException
    from cookiecutter.repository import determine_repo_dir

    with open_temporary_folder("template") as folder:
        try:
            place, _ = determine_repo_dir(
                template, get_user_config(default_config=True)["abbreviations"], folder, checkout=None, no_input=True
            )
        except CookiecutterException as error:
            raise UsageError(
                f"Template '{template}' cannot be used: {error}",
                "Check the folder or URL; a template has a cookiecutter.json.",
            ) from error
        _refuse_foreign_template_links(Path(place))
        yield Path(place)


def find_template_code(folder: Path) -> list[str]:
    """The code that a template runs: its hooks, and the Jinja extensions that it names."""
    hooks = [
        file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("hooks/*"))
        if file.is_file() and file.stem in HOOKS
    ]
    extensions: list[Any] = []
    for file in folder.rglob("cookiecutter.json"):
        try:
            names = json.loads(file.read_text(encoding="utf-8")).get("_extensions", [])
        except (ValueError, AttributeError):
            continue
        extensions += names if isinstance(names, list) else [names]
    return [*hooks, *(f"the Jinja extension {name}" for name in extensions)]


def _refuse_foreign_template_links(folder: Path) -> None:
    """Refuse links to files outside a template: the files would be copied into the project."""
    root = folder.resolve()
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise UsageError(
                    f"The template has the link {path.relative_to(folder)} to a place outside the template.",
                    "Use another template, or ask its author to copy the file into the template.",
                )


@contextmanager
def render_in_sandbox(folder: Path) -> Iterator[None]:
    """Make cookiecutter render in Jinja's sandbox and write only inside a folder.

    Raises:
        UsageError: a template calls Python, or names a file outside the folder.
    """
    from cookiecutter import environment, generate, utils
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment

    class Sandbox(environment.StrictEnvironment, SandboxedEnvironment):  # type: ignore[misc]
        """cookiecutter's environment, in which a template can call only filters."""

    class PathSandbox(Sandbox):
        """The environment that renders the paths of files and provides the templates of their contents."""

        def from_string(self, source: Any, *args: Any, **kwargs: Any) -> Any:
            return _PathTemplate(super().from_string(source, *args, **kwargs), folder)

    def create_path_sandbox(context: dict[str, Any]) -> Any:
        options = context.get("cookiecutter", {}).get("_jinja2_env_vars", {})
        return PathSandbox(context=context, keep_trailing_newline=True, **options)

    before = utils.StrictEnvironment, generate.create_env_with_context
    utils.StrictEnvironment, generate.create_env_with_context = Sandbox, create_path_sandbox
    try:
        yield
    except SecurityError as error:
        raise UsageError(
            f"The template runs Python code: {error}", "If you trust it, allow it: mlapp init … --yes."
        ) from error
    finally:
        utils.StrictEnvironment, generate.create_env_with_context = before


class _PathTemplate:
    """A template of a path that cookiecutter writes to."""

    def __init__(self, template: Any, folder: Path) -> None:
        self._template = template
        self._folder = folder

    def render(self, **context: Mapping[str, Any]) -> str:
        """The rendered path.

        Raises:
            UsageError: the path is outside the folder.
        """
        path: str = self._template.render(**context)
        is_below = Path(os.path.normpath(self._folder / path)).is_relative_to(self._folder)
        if ".." in Path(path).parts or not is_below:
            raise UsageError(f"The template writes to {path!r}, which is outside the project.", "Use another template.")
        return path
