"""`mlapp predict`"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.parameters import Parameters, parse
from mlapp.errors import UsageError


def predict(
    features: Annotated[
        str | None, typer.Option(help="A CSV, Parquet, JSON or JSON-lines file of features, or - for JSON from stdin.")
    ] = None,
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    parameter: Parameters = None,
) -> None:
    """Print predictions as JSON: of a file's features, or of what the reader reads.

    Examples:

      mlapp predict --features new.csv

      echo '[{"age": 41}]' | mlapp predict --features -

      mlapp predict -p limit=5
    """
    from mlapp.features_file import read_features_file
    from mlapp.project import Project
    from mlapp.schema.infer import plain

    values = parse(parameter)
    if features is not None and values:
        raise UsageError("--features and -p are both given.", "Give a file, or the reader's parameters.")
    project = Project.find()
    inputs = None if features is None else read_features_file(features)
    predictions = project.app.predict(inputs, version=model, **values)
    output.json(plain(_listed(predictions)))


def _listed(predictions: object) -> object:
    return (
        predictions.to_dict("records")
        if hasattr(predictions, "to_dict") and hasattr(predictions, "columns")
        else predictions
    )
