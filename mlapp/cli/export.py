"""`mlapp export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.parameters import Parameters, parse_parameters
from mlapp.errors import UsageError, suggest_nearest

MAX_ROWS = 1000
"""Maximum rows of the reader's data on which both models are compared."""


def export_model(
    runtime: Annotated[
        str | None, typer.Argument(metavar="[mlserver]", help="Write a folder for MLServer.", show_default=False)
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX file.")] = False,
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    to: Annotated[
        Path | None, typer.Option(help="The file or folder to write. [<app>-<version>.onnx, <app>-mlserver]")
    ] = None,
    parameter: Parameters = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Export a model as ONNX, or as a folder for MLServer.

    Before it writes ONNX, mlapp compares both models' predictions on the data from the reader.

    Examples:

      mlapp export --onnx

      mlapp export --onnx --model production --to model.onnx -p limit=500

      mlapp export mlserver --to digits && mlserver start digits
    """
    if onnx == (runtime is not None):
        raise UsageError("mlapp export needs one format.", "Give --onnx or mlserver.")
    if runtime not in (None, "mlserver"):
        suggestion = suggest_nearest(runtime, ["mlserver"])
        raise UsageError(f"There is no format '{runtime}'.{suggestion}", "Give --onnx or mlserver.")
    if onnx:
        _export_onnx(model, to, parse_parameters(parameter), environment, json)
        return
    if parameter:
        raise UsageError("-p is given, but an export to MLServer reads no data.", "Leave out -p.")
    _export_mlserver(model, to, environment, json)


def _export_mlserver(model: str, to: Path | None, environment: str | None, json: bool) -> None:
    from mlapp.mlserver_export import export_to_mlserver
    from mlapp.project import Project

    here = Path.cwd()
    project = Project.find(environment=environment)
    folder = to or Path(f"{project.name}-mlserver")

    bundle = export_to_mlserver(project, model, here / folder, environment=environment, warn=output.print_warning)
    if json:
        output.print_json(
            {"folder": str(here / folder), "model": bundle.manifest.app, "version": bundle.manifest.version}
        )
        return
    output.print_result(str(folder))
    output.print_note(
        f"The folder contains {bundle.manifest.app} version {bundle.manifest.version}. Next, in an environment with "
        f"MLServer: pip install -r {folder}/requirements.txt && mlserver start {folder}"
    )


def _export_onnx(model: str, to: Path | None, values: dict[str, Any], environment: str | None, json: bool) -> None:
    from mlapp import onnx_conversion, prediction, training
    from mlapp.data.export import replace_exported_file
    from mlapp.project import Project
    from mlapp.project_outputs import record_project_outputs

    here = Path.cwd()  # loading the app changes to the project's folder
    project = Project.find(environment=environment)
    version = project.store.get(project.name, model)
    file = to or Path(f"{project.name}-{version.version}.onnx")
    with replace_exported_file(here / file) as unfinished:
        predictor = prediction.load_predictor(project.app, version)
        features = training.read_features(project.app, values, trained_with=predictor.parameters)[:MAX_ROWS]
        converted = onnx_conversion.convert_to_onnx(predictor, features)
        unfinished.write_bytes(converted.estimator.content)
    record_project_outputs(project.root, [here / file])
    if json:
        output.print_json(
            {"file": str(here / file), "model": project.name, "version": version.version, "rows": len(features)}
        )
        return
    output.print_note(
        f"{file} has the same predictions as {project.name} version {version.version} on {len(features)} rows. Its "
        "inputs are the model's features, after a feature_transformer."
    )
