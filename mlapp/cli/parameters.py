"""`-p name=value`, as several commands take it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from mlapp.errors import UsageError

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--parameter",
        metavar="NAME=VALUE",
        help="A parameter of a stage; `stage.name` where two share it, `name.field` for a field of one.",
    ),
]

ParametersFile = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="A YAML or JSON file of parameters; -p overrides it."),
]


def given_parameters(file: Path | None, texts: Iterable[str] | None) -> dict[str, Any]:
    """The parameters of a file, and over them those of `-p`.

    Raises:
        UsageError: see `read_file` and `parse`.
    """
    return {**({} if file is None else read_file(file)), **parse_parameters(texts)}


def read_file(file: Path) -> dict[str, Any]:
    """The parameters in a YAML or JSON file, as `C: 0.1` or, by stage, as `model: {C: 0.1}`.

    Raises:
        UsageError: the file does not exist, or holds no names and values.
    """
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"--params {file} cannot be read: {reason}.", "Give a YAML or JSON file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(
            f"{file}{line} is not YAML: {getattr(error, 'problem', error)}.", "Correct that line."
        ) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"{file} holds a {type(found).__name__}.", "Write names and values, as `C: 0.1`.")
    return {str(name): value for name, value in found.items()}


def parse_parameters(given: Iterable[str] | None) -> dict[str, str]:
    """`["C=0.1"]` as `{"C": "0.1"}`.

    Raises:
        UsageError: a text without `=`, or a name that is given twice.
    """
    values: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"-p {text}: there is no '=' in it.", "Give it as -p name=value.")
        if name in values:
            raise UsageError(f"-p {name} is given twice.", "Give it once.")
        values[name] = value
    return values
