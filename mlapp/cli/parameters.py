"""`-p name=value`, as several commands take it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from mlapp.errors import UsageError

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "-p", "--parameter", metavar="NAME=VALUE", help="A parameter of a stage; `stage.name` where two share it."
    ),
]


def parse(given: Iterable[str] | None) -> dict[str, str]:
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
