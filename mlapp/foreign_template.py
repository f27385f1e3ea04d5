"""Templates from elsewhere: fetched into a temporary folder, and searched for code before any of it runs.

A template's hooks and Jinja extensions run as the user. Without any, the template is rendered in Jinja's sandbox, so
that nothing in a name or a file calls Python.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlapp.errors import UsageError

HOOKS = ("pre_prompt", "pre_gen_project", "post_gen_project")


@contextmanager
def fetch_template(template: str) -> Iterator[Path]:
    """The folder of a template at a URL, for as long as the block lasts.

    Raises:
        UsageError: it cannot be fetched, or is not a template.
    """
    from cookiecutter.config import get_user_config
    from cookiecutter.exceptions import CookiecutterException
    from cookiecutter.repository import determine_repo_dir

    with tempfile.TemporaryDirectory(prefix="mlapp-template-") as folder:
        try:
            place, _ = determine_repo_dir(
                template, get_user_config(default_config=True)["abbreviations"], folder, checkout=None, no_input=True
            )
        except CookiecutterException as error:
            raise UsageError(
                f"Template '{template}' cannot be used: {error}",
                "Check the folder or URL; a template has a cookiecutter.json.",
            ) from error
        yield Path(place)


def find_code(folder: Path) -> list[str]:
    """Code of a template that runs when it is used: its hooks, and the Jinja extensions that it names."""
    hooks = [
        file.relative_to(folder).as_posix()
        for file in sorted(folder.rglob("hooks/*"))
        if file.is_file() and file.stem in HOOKS
    ]
    extensions: list[Any] = []
    for file in folder.rglob("cookiecutter.json"):
        try:
            found = json.loads(file.read_text(encoding="utf-8")).get("_extensions", [])
        except (ValueError, AttributeError):
            continue
        extensions += found if isinstance(found, list) else [found]
    return [*hooks, *(f"the Jinja extension {name}" for name in extensions)]


@contextmanager
def render_in_sandbox() -> Iterator[None]:
    """Let cookiecutter render in Jinja's sandbox."""
    from cookiecutter import environment, utils
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import SandboxedEnvironment

    class Sandbox(environment.StrictEnvironment, SandboxedEnvironment):  # type: ignore[misc]
        """cookiecutter's environment, in which a template calls nothing but its filters."""

    before = utils.StrictEnvironment
    utils.StrictEnvironment = Sandbox
    try:
        yield
    except SecurityError as error:
        raise UsageError(
            f"The template calls Python: {error}", "If you trust it, let it run: mlapp init … --yes."
        ) from error
    finally:
        utils.StrictEnvironment = before
