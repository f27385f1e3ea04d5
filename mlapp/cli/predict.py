"""`mlapp predict`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment
from mlapp.cli.parameters import Parameters, parse_parameters
from mlapp.cli.remote import (
    NoWait,
    Remote,
    announce_remote_run,
    follow_remote_run,
    print_remote_run_id,
    register_remote_project,
)
from mlapp.cli.target_options import Context, Namespace, open_target_from_options, read_target_flags
from mlapp.engines import open_project_engine
from mlapp.errors import UsageError
from mlapp.request_body import RequestBody, read_request_body

if TYPE_CHECKING:
    from mlapp.project import Project


def print_predictions(
    features: Annotated[
        str | None, typer.Option(help="A CSV, Parquet, JSON or JSON-lines file of features, or - for JSON from stdin.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A version, an alias or `latest`.", show_default="latest")] = None,
    parameter: Parameters = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Send the request to the model on this target: docker, k8s, …")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Send the request to the server at this URL, such as http://host:8000.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    environment: Environment = None,
    remote: Remote = False,
    no_wait: NoWait = False,
) -> None:
    """Print predictions as JSON.

    The features come from a file, or from the data_reader. With --target or --url, mlapp sends the file unchanged and
    needs neither the app's code nor its libraries.

    Examples:

      mlapp predict --features new.csv

      echo '[{"age": 41}]' | mlapp predict --features -

      mlapp predict -p limit=5

      mlapp predict --target k8s --features new.csv

      mlapp predict --url https://digits.example.org --features new.csv

      mlapp predict --remote -p day=2026-01-31
    """
    from mlapp.normalization import normalize_to_rows
    from mlapp.project import Project

    values = parse_parameters(parameter)
    deployment = "--target" if target is not None else "--url" if url is not None else None
    _refuse_contradictory_predict_options(features, values, deployment, model, remote=remote, no_wait=no_wait)
    if target is not None and url is not None:
        raise UsageError("--target and --url are both given.", "Give one of them.")
    if target is None:
        _refuse_target_flags({"namespace": namespace, "context": context, **read_target_flags()})
    project = Project.find(environment=environment)
    if deployment:
        body = read_request_body(features) if features is not None else _read_predict_body(project, values)
        output.print_json(
            _predict_at_url(project, url, body)
            if url is not None
            else _predict_deployed(project, target, namespace, context, body)
        )
        return
    if remote:
        predictions = _predict_on_flyte(project, values, model or "latest", no_wait)
        if predictions is None:
            return
    else:
        predictions = _predict_here(project, features, values, model or "latest")
    output.print_json(normalize_to_rows(predictions, f"The predictor of {project.name}"))


def _refuse_contradictory_predict_options(
    features: str | None,
    values: dict[str, Any],
    deployment: str | None,
    model: str | None,
    *,
    remote: bool,
    no_wait: bool,
) -> None:
    """Refuse options that exclude each other.

    Args:
        deployment: the option that selects a deployed model, `--target` or `--url`.
    """
    if features is not None and values:
        raise UsageError("--features and -p are both given.", "Give either a file or the reader's parameters.")
    if no_wait and not remote:
        raise UsageError(
            "--no-wait is given without --remote.", "Add --remote: only a run on Flyte continues without this command."
        )
    if remote and deployment:
        raise UsageError(
            f"{deployment} and --remote are both given.",
            "Give one of them: --remote predicts in a run on Flyte, the other one asks a deployed model.",
        )
    if deployment and model is not None:
        raise UsageError(
            f"{deployment} and --model are both given.", "The deployed version answers: leave out --model."
        )
    if remote and features is not None:
        raise UsageError(
            "--features and --remote are both given.",
            "On Flyte, the features come from the data_reader: set its parameters with -p.",
        )


def _refuse_target_flags(flags: dict[str, Any]) -> None:
    """Refuse the flags of a target in a command without `--target`."""
    for name, value in flags.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is given without --target.", f"Give --target too, or leave {flag} out.")


def _predict_here(project: Project, features: str | None, values: dict[str, Any], model: str) -> Any:
    """The predictions on a file of features, or on the reader's data if `features` is None."""
    from mlapp import prediction, training
    from mlapp.features_file import check_features_file, read_features_file

    if features is not None:
        check_features_file(features)
    here = Path.cwd()  # loading the app changes to the project's folder
    predictor = project.app.load(model)
    if features is None:
        return predictor.predict_features(
            training.read_features(project.app, values, trained_with=predictor.parameters)
        )
    has_loader = project.app.stage("feature_loader") is not None
    schema = prediction.UNKNOWN if has_loader else predictor.schema.features
    ignore_unknown = project.app.settings.serve.extra == "ignore"
    return predictor.predict(read_features_file(features, schema, here, ignore_unknown=ignore_unknown))


def _predict_on_flyte(project: Project, values: dict[str, Any], model: str, no_wait: bool) -> Any:
    """The predictions of a run on Flyte; None if the command does not wait for it."""
    engine = open_project_engine(project)
    version = project.store.get(project.name, model)
    run = announce_remote_run(engine.start_run("predict", values, register_remote_project(engine), version=version))
    if no_wait:
        print_remote_run_id(run)
        return None
    follow_remote_run(engine, run.id)
    table = engine.fetch_predictions(run.id)
    return table["prediction"] if list(table.columns) == ["prediction"] else table


def _predict_deployed(
    project: Project, name: str | None, namespace: str | None, context: str | None, body: RequestBody
) -> Any:
    """The predictions of the deployed model, without a public address.

    Raises:
        UsageError: the target does not support predictions. DeployError: it does not answer.
    """
    from mlapp.deploy import PredictTarget

    target = open_target_from_options(project, name, namespace, context)
    if not isinstance(target, PredictTarget):
        raise UsageError(f"The target {target.name} does not answer requests.", "Use --remote, or another target.")
    return target.predict(body)["predictions"]


def _predict_at_url(project: Project, url: str, body: RequestBody) -> Any:
    """The predictions of the server at a URL, with the first of the locally configured API keys.

    Raises:
        InputError: the server refuses the inputs. RemoteError: it does not answer, or not with predictions.
    """
    from mlapp.client import Remote

    serve = project.settings.serve
    key = serve.api_keys[0] if serve.api_keys else None
    return Remote(url, timeout=serve.timeout, api_key=key).predict(body)


def _read_predict_body(project: Project, values: dict[str, Any]) -> RequestBody:
    """The data of the app's reader, as a request.

    Raises:
        UsageError: the app has a feature_loader, which takes raw inputs instead of features.
    """
    from mlapp import training
    from mlapp.schema.json_values import to_json_value
    from mlapp.store.manifest import list_manifest_parameters

    if project.app.stage("feature_loader") is not None:
        raise UsageError(
            f"App '{project.name}' has a feature_loader: the deployed model takes raw inputs.",
            "Give the inputs as a file: --features.",
        )
    trained_with = list_manifest_parameters(project.store.get(project.name, "latest").manifest)
    features = training.read_features(project.app, values, trained_with=trained_with)
    return RequestBody.of(to_json_value(features.to_dict("records") if hasattr(features, "columns") else features))
