"""`mlapp data`: show, export and check the reader's data"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Json
from mlapp.cli.parameters import Parameters, parse_parameters

cli = typer.Typer(help="Inspect and export the data of the data_reader.", no_args_is_help=True)


@cli.callback()
def describe_data_commands() -> None:
    """Show, check and export the data of the data_reader."""


@cli.command("show")
def show_data(
    parameter: Parameters = None,
    rows: Annotated[int, typer.Option(min=0, help="Number of rows to show.")] = 5,
    json: Json = False,
) -> None:
    """Show the columns and the first rows.

    For each column: type, missing values, distinct values, range and distribution.

    Example:

      mlapp data show -p limit=100
    """
    from mlapp import training
    from mlapp.data.fingerprint import fingerprint_table
    from mlapp.data.profile import profile_table
    from mlapp.project import Project
    from mlapp.schema.json_values import to_json_value

    with _show_read_row_count():
        table = training.read_training_table(Project.find().app, parse_parameters(parameter))
    columns = profile_table(table)
    head = table.head(rows)
    if json:
        output.print_json(
            {
                "rows": len(table),
                "fingerprint": fingerprint_table(table),
                "columns": [{name: to_json_value(value) for name, value in vars(column).items()} for column in columns],
                "head": to_json_value(head.to_dict("records")),
            }
        )
        return
    output.print_table(
        ["column", "type", "missing", "distinct", "min", "max", "distribution"],
        [
            [
                column.name,
                column.dtype,
                column.missing or "",
                column.distinct,
                to_json_value(column.minimum),
                to_json_value(column.maximum),
                column.distribution,
            ]
            for column in columns
        ],
    )
    output.print_note(f"{len(table):,} rows, fingerprint {fingerprint_table(table)[:12]}. The first {len(head)}:")
    if rows:
        output.print_result(head.to_string())


@cli.command("export")
def export_data(
    to: Annotated[Path, typer.Option(help="File to write: .csv, .csv.gz or .parquet.")],
    parameter: Parameters = None,
    json: Json = False,
) -> None:
    """Export the reader's data to a file.

    Writes the data in parts. The file appears when it is complete.

    Examples:

      mlapp data export --to orders.csv -p since=2026-01-01

      mlapp data export --to orders.parquet
    """
    import os

    from mlapp import training
    from mlapp.data.export import export_table
    from mlapp.project import Project
    from mlapp.project_outputs import record_project_outputs

    target = Path.cwd() / to  # loading the app changes to the project's folder
    project = Project.find()
    with _show_read_row_count():
        rows = export_table(training.iterate_reader_parts(project.app, parse_parameters(parameter)), target)
    record_project_outputs(project.root, [target])
    if json:
        output.print_json({"file": str(target), "rows": rows, "bytes": os.path.getsize(target)})
        return
    output.print_note(f"{rows:,} rows are in {to}.")


@cli.command("check")
def check_data(
    parameter: Parameters = None,
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    json: Json = False,
) -> None:
    """Compare the reader's data with the training data of a version.

    Exits with 1 if the model would refuse the data.

    Example:

      mlapp data check -p since=2026-01-01
    """
    from mlapp import training
    from mlapp.errors import DataError
    from mlapp.project import Project
    from mlapp.schema import infer_schema
    from mlapp.schema.compare import compare_schemas
    from mlapp.store.manifest import list_manifest_parameters

    project = Project.find()
    version = project.store.get(project.name, model)
    with _show_read_row_count():
        trained_with = list_manifest_parameters(version.manifest)
        features = training.read_features(project.app, parse_parameters(parameter), trained_with=trained_with)
    differences = compare_schemas(version.manifest.schema.features, infer_schema(features))
    breaking = [difference for difference in differences if difference.breaks]
    if json:
        output.print_json(
            {"version": version.version, "rows": len(features), "fits": not breaking, "differences": differences}
        )
    elif differences:
        output.print_table(
            ["column", "difference", ""],
            [[each.column, each.what, "breaks" if each.breaks else "look"] for each in differences],
        )
    if breaking:
        names = ", ".join(dict.fromkeys(difference.column for difference in breaking))
        raise DataError(
            f"The data does not fit version {version.version}: {names}.",
            "Fix the data, or train a new version on this data: mlapp train.",
        )
    if not json:
        output.print_note(f"{len(features):,} rows fit version {version.version}.")


@contextmanager
def _show_read_row_count() -> Iterator[None]:
    """Show the number of received rows: a counter on a terminal, one line elsewhere."""
    from mlapp.data.source import watch_source_rows

    total = 0
    with output.show_progress() as report:

        def add_rows(rows: int) -> None:
            nonlocal total
            total += rows
            if sys.stderr.isatty():
                report(f"read {total:,} rows")

        report("read")
        with watch_source_rows(add_rows):
            yield
