"""`mlapp predict`"""

from __future__ import annotations

from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.parameters import Parameters, parse
from mlapp.cli.remote import NoWait, Remote, follow, open_engine, start
from mlapp.errors import UsageError


def predict(
    features: Annotated[
        str | None, typer.Option(help="A CSV, Parquet, JSON or JSON-lines file of features, or - for JSON from stdin.")
    ] = None,
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    parameter: Parameters = None,
    remote: Remote = False,
    no_wait: NoWait = False,
) -> None:
    """Print predictions as JSON.

    Of a file's features, or of what the reader reads.

    Examples:

      mlapp predict --features new.csv

      echo '[{"age": 41}]' | mlapp predict --features -

      mlapp predict -p limit=5

      mlapp predict --remote -p day=2026-01-31
    """
    from mlapp.features_file import read_features_file
    from mlapp.project import Project
    from mlapp.schema.infer import plain

    values = parse(parameter)
    if features is not None and values:
        raise UsageError("--features and -p are both given.", "Give a file, or the reader's parameters.")
    if no_wait and not remote:
        raise UsageError("--no-wait is given without --remote.", "Only a run on Flyte can be left alone.")
    project = Project.find()
    if remote:
        if features is not None:
            raise UsageError("--features and --remote are both given.", "On Flyte the reader reads: give -p for it.")
        engine = open_engine(project)
        run = start(engine, "predict", values, version=project.store.get(project.name, model))
        if no_wait:
            output.note(f"Come back: mlapp runs wait {run.id}")
            return
        follow(engine, run.id)
        predicted = engine.predictions(run.id)
        is_plain = list(predicted.columns) == ["prediction"]
        output.json(plain(_listed(predicted["prediction"].tolist() if is_plain else predicted)))
        return
    inputs = None if features is None else read_features_file(features)
    predictions = project.app.predict(inputs, version=model, **values)
    output.json(plain(_listed(predictions)))


def _listed(predictions: object) -> object:
    return (
        predictions.to_dict("records")
        if hasattr(predictions, "to_dict") and hasattr(predictions, "columns")
        else predictions
    )
