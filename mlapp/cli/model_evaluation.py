"""`mlapp models evaluate`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json, Version


def evaluate_version(
    data: Annotated[
        str, typer.Option("--data", metavar="FILE", help="A table with the columns of training, including the target.")
    ],
    version: Version = "latest",
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Evaluate a version on a file, with the app's evaluator.

    FILE is a CSV, Parquet, JSON-lines or Excel file, or the URL of one: whatever `mlapp.files.read` reads. Nothing is
    stored.

    Examples:

      mlapp models evaluate production --data 2026-10.parquet

      mlapp models evaluate 7 --data holdout.csv --json
    """
    from mlapp.data import files
    from mlapp.project import Project
    from mlapp.schema.json_values import to_json_value
    from mlapp.training.version_evaluation import evaluate_stored_version

    address = data if "://" in data else str(Path(data).absolute())  # loading the app changes to the project's folder
    project = Project.find(environment=environment)
    stored = project.store.get(project.name, version)
    table = files.read(address)
    metrics = evaluate_stored_version(project.app, stored, table)
    if json:
        values = {name: to_json_value(value) for name, value in metrics.items()}
        output.print_json({"app": project.name, "version": stored.version, "rows": len(table), "metrics": values})
        return
    trained = stored.manifest.metrics
    output.print_table(
        [f"version {stored.version}", f"{data} ({len(table)} rows)", *trained],
        [[name, value, *(split.get(name) for split in trained.values())] for name, value in metrics.items()],
    )
