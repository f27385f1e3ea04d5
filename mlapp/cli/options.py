"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Environment = Annotated[
    str | None, typer.Option("--env", help="Use the settings of this environment (`environments:` in mlapp.yaml).")
]
Version = Annotated[str, typer.Argument(help="A version, an alias or `latest`.")]
