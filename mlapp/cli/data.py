"""`mlapp data`: what the reader reads"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Json
from mlapp.cli.parameters import Parameters, parse

cli = typer.Typer(help="What the data_reader reads.", no_args_is_help=True)


@cli.callback()
def main() -> None:
    """What the data_reader reads."""


@cli.command()
def show(
    parameter: Parameters = None,
    rows: Annotated[int, typer.Option(help="Rows to show.")] = 5,
    json: Json = False,
) -> None:
    """Show the columns, the missing values and the first rows.

    Example:

      mlapp data show -p limit=100
    """
    from mlapp import training
    from mlapp.project import Project
    from mlapp.schema import infer
    from mlapp.schema.infer import plain

    table = training.read_table(Project.find().app, parse(parameter))
    fields = infer(table).fields
    missing = table.isna().sum()
    if json:
        output.json({"rows": len(table), "columns": fields, "head": plain(table.head(rows).to_dict("records"))})
        return
    output.table(
        ["column", "type", "missing", "least", "most", "example"],
        [
            [field.name, field.type, int(missing[field.name]), field.minimum, field.maximum, field.example]
            for field in fields
        ],
    )
    output.note(f"{len(table)} rows. The first {min(rows, len(table))}:")
    print(table.head(rows).to_string())
