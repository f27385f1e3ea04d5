"""`mlapp predict`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.parameters import Parameters, parse
from mlapp.cli.remote import NoWait, Remote, follow, left_alone, register, started
from mlapp.cli.target_options import Context, Namespace, open_for
from mlapp.errors import UsageError
from mlapp.flyte import open_engine

if TYPE_CHECKING:
    from mlapp.project import Project


def predict(
    features: Annotated[
        str | None, typer.Option(help="A CSV, Parquet, JSON or JSON-lines file of features, or - for JSON from stdin.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A version, an alias or `latest`.", show_default="latest")] = None,
    parameter: Parameters = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Ask the model that is deployed there: docker, k8s, …")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    remote: Remote = False,
    no_wait: NoWait = False,
) -> None:
    """Print predictions as JSON.

    Of a file's features, or of what the reader reads.

    Examples:

      mlapp predict --features new.csv

      echo '[{"age": 41}]' | mlapp predict --features -

      mlapp predict -p limit=5

      mlapp predict --target k8s --features new.csv

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
    if remote and target is not None:
        raise UsageError("--target and --remote are both given.", "Ask a deployed model, or run on Flyte.")
    if target is not None and model is not None:
        raise UsageError("--target and --model are both given.", "What is deployed answers: leave --model out.")
    if remote and features is not None:
        raise UsageError("--features and --remote are both given.", "On Flyte the reader reads: give -p for it.")
    project = Project.find(environment=environment)
    if remote:
        predictions = _on_flyte(project, values, model or "latest", no_wait)
        if predictions is None:
            return
    else:
        inputs = None if features is None else read_features_file(features)
        if target is None:
            predictions = project.app.predict(inputs, version=model or "latest", **values)
        else:
            predictions = _deployed(project, target, namespace, context, inputs, values)
    output.json(plain(_listed(predictions)))


def _on_flyte(project: Project, values: dict[str, Any], model: str, no_wait: bool) -> Any:
    """The predictions of a run on Flyte; None where it is left alone."""
    engine = open_engine(project)
    version = project.store.get(project.name, model)
    run = started(engine.run("predict", values, register(engine), version=version))
    if no_wait:
        left_alone(run)
        return None
    follow(engine, run.id)
    predicted = engine.predictions(run.id)
    return predicted["prediction"].tolist() if list(predicted.columns) == ["prediction"] else predicted


def _deployed(
    project: Project,
    name: str,
    namespace: str | None,
    context: str | None,
    inputs: Any,
    values: dict[str, Any],
) -> Any:
    """The predictions of what is deployed, without a public address.

    Raises:
        UsageError: the target answers no predictions by itself. DeployError: it does not answer.
    """
    from mlapp import training
    from mlapp.deploy import PredictTarget
    from mlapp.schema.infer import plain

    place = open_for(project, name, namespace, context)
    if not isinstance(place, PredictTarget):
        raise UsageError(f"The target {place.name} answers no predictions.", "Use --remote, or ask another target.")
    inputs = training.read_features(project.app, values) if inputs is None else project.app.features_of(inputs)
    return place.predict(plain(_listed(inputs)))["predictions"]


def _listed(predictions: object) -> object:
    return (
        predictions.to_dict("records")
        if hasattr(predictions, "to_dict") and hasattr(predictions, "columns")
        else predictions
    )
