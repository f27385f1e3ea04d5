"""`mlapp export`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment, Json
from mlapp.cli.parameters import Parameters, parse_parameters
from mlapp.errors import UsageError

MOST_ROWS = 1000


def export_model(
    onnx: Annotated[bool, typer.Option("--onnx", help="As an ONNX file.")] = False,
    model: Annotated[str, typer.Option(help="A version, an alias or `latest`.")] = "latest",
    to: Annotated[Path | None, typer.Option(help="The file to write. [<app>-<version>.onnx]")] = None,
    parameter: Parameters = None,
    environment: Environment = None,
    json: Json = False,
) -> None:
    """Write a model for other programs, as ONNX.

    Its answers are compared with the original's first, on what the reader reads.

    Examples:

      mlapp export --onnx

      mlapp export --onnx --model production --to model.onnx -p limit=500
    """
    from mlapp import onnx_conversion, prediction, training
    from mlapp.data.export import replace_file
    from mlapp.project import Project

    if not onnx:
        raise UsageError("mlapp export needs a format.", "Give --onnx.")
    values = parse_parameters(parameter)
    here = Path.cwd()  # loading the app changes to the project's folder
    project = Project.find(environment=environment)
    version = project.store.get(project.name, model)
    file = to or Path(f"{project.name}-{version.version}.onnx")
    with replace_file(here / file) as unfinished:
        predictor = prediction.load_predictor(project.app, version)
        features = training.read_features(project.app, values, trained_with=predictor.parameters)[:MOST_ROWS]
        converted = onnx_conversion.convert_to_onnx(predictor, features)
        unfinished.write_bytes(converted.estimator.content)
    if json:
        output.print_json(
            {"file": str(here / file), "model": project.name, "version": version.version, "rows": len(features)}
        )
        return
    output.print_note(
        f"{file} answers as {project.name} version {version.version}: {len(features)} rows were compared. It takes the "
        "features as the model does, after a feature_transformer."
    )
