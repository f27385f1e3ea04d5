"""`-p name=value`, an option of several commands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from mlapp.config.yaml_text import parse_yaml
from mlapp.errors import UsageError

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--parameter",
        metavar="NAME=VALUE",
        help="A parameter of a stage: `name`, `stage.name` if two stages share the name, or `name.field` for a field.",
    ),
]

ParametersFile = Annotated[
    Path | None,
    typer.Option("--params", metavar="FILE", help="A YAML or JSON file with parameters. -p overrides it."),
]


def read_command_parameters(file: Path | None, texts: Iterable[str] | None) -> dict[str, Any]:
    """The parameters of a file, overridden by those of `-p`.

    Raises:
        UsageError: see `read_parameters_file` and `parse_parameters`.
    """
    return {**({} if file is None else read_parameters_file(file)), **parse_parameters(texts)}


def read_parameters_file(file: Path) -> dict[str, Any]:
    """The parameters in a YAML or JSON file, such as `C: 0.1` or, by stage, `model: {C: 0.1}`.

    Raises:
        UsageError: the file does not exist, or is not a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"--params {file} cannot be read: {reason}.", "Give a YAML or JSON file.") from None
    content = parse_yaml(text, file)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(
            f"{file} contains a {type(content).__name__}, not parameters.", "Write names and values, such as `C: 0.1`."
        )
    return {str(name): value for name, value in content.items()}


def parse_parameters(texts: Iterable[str] | None) -> dict[str, str]:
    """Parse `["C=0.1"]` to `{"C": "0.1"}`.

    Raises:
        UsageError: a text has no `=`, or a name is given twice.
    """
    values: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"-p {text} has no '='.", "Give it as -p name=value.")
        if name in values:
            raise UsageError(f"-p {name} is given twice.", "Give it once.")
        values[name] = value
    return values
