"""`mlapp data`: what the reader reads"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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
    rows: Annotated[int, typer.Option(min=0, help="Rows to show.")] = 5,
    json: Json = False,
) -> None:
    """Show the columns and the first rows.

    Of each column its type, missing and different values, range and distribution.

    Example:

      mlapp data show -p limit=100
    """
    from mlapp import training
    from mlapp.data.fingerprint import fingerprint
    from mlapp.data.profile import profile
    from mlapp.project import Project
    from mlapp.schema.infer import plain

    with _reading():
        table = training.read_table(Project.find().app, parse(parameter))
    columns = profile(table)
    head = table.head(rows)
    if json:
        output.json(
            {
                "rows": len(table),
                "fingerprint": fingerprint(table),
                "columns": [{name: plain(value) for name, value in vars(column).items()} for column in columns],
                "head": plain(head.to_dict("records")),
            }
        )
        return
    output.table(
        ["column", "type", "missing", "distinct", "least", "most", "distribution"],
        [
            [
                column.name,
                column.dtype,
                column.missing or "",
                column.distinct,
                plain(column.minimum),
                plain(column.maximum),
                column.distribution,
            ]
            for column in columns
        ],
    )
    output.note(f"{len(table):,} rows, fingerprint {fingerprint(table)[:12]}. The first {len(head)}:")
    if rows:
        print(head.to_string())


@cli.command()
def export(
    to: Annotated[Path, typer.Option(help="File to write: .csv, .csv.gz or .parquet.")],
    parameter: Parameters = None,
    json: Json = False,
) -> None:
    """Write what the reader reads to a file, part by part. The file appears when it is whole.

    Examples:

      mlapp data export --to orders.csv -p since=2026-01-01

      mlapp data export --to orders.parquet
    """
    import os

    from mlapp import training
    from mlapp.data.export import export
    from mlapp.project import Project

    target = Path.cwd() / to  # loading the app changes to the project's folder
    with _reading():
        rows = export(training.read_parts(Project.find().app, parse(parameter)), target)
    if json:
        output.json({"file": str(target), "rows": rows, "bytes": os.path.getsize(target)})
        return
    output.note(f"{rows:,} rows are in {to}.")


@cli.command()
def check(
    parameter: Parameters = None,
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    json: Json = False,
) -> None:
    """Compare what the reader reads with what a version was trained on. Exit 1 when the model would refuse it.

    Example:

      mlapp data check -p since=2026-01-01
    """
    from mlapp import training
    from mlapp.errors import DataError
    from mlapp.project import Project
    from mlapp.schema import infer
    from mlapp.schema.compare import compare

    project = Project.find()
    version = project.store.get(project.name, model)
    with _reading():
        features = training.read_features(project.app, parse(parameter))
    found = compare(version.manifest.schema.features, infer(features))
    broken = [difference for difference in found if difference.breaks]
    if json:
        output.json({"version": version.version, "rows": len(features), "fits": not broken, "differences": found})
    elif found:
        output.table(
            ["column", "difference", ""],
            [[each.column, each.what, "breaks" if each.breaks else "look"] for each in found],
        )
    if broken:
        names = ", ".join(dict.fromkeys(difference.column for difference in broken))
        raise DataError(
            f"The data does not fit version {version.version}: {names}.",
            "Mend what is read, or train a version on the data as it is: mlapp train.",
        )
    if not json:
        output.note(f"{len(features):,} rows fit version {version.version}.")


@contextmanager
def _reading() -> Iterator[None]:
    """Tell how many rows have come: a counter on a terminal, one line elsewhere."""
    from mlapp.data.source import watched

    total = 0
    with output.progress() as tell:

        def more(rows: int) -> None:
            nonlocal total
            total += rows
            if sys.stderr.isatty():
                tell(f"read {total:,} rows")

        tell("read")
        with watched(more):
            yield
