"""`mlapp serve`"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli.options import Environment
from mlapp.cli.plain_serve import start_server
from mlapp.cli.result_stream import release_stdout


class Runtime(str, enum.Enum):
    """The runtime that computes the predictions."""

    NATIVE = "native"
    ONNX = "onnx"


def serve_model(
    apps: Annotated[
        list[str] | None,
        typer.Argument(help="Files of apps, such as digits/app.py:app. Several apps are served under their names."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [127.0.0.1, or 0.0.0.0 in a container]")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 selects a free one. [$PORT, or 8000]")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port for the Open Inference Protocol over gRPC. [off]")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Number of processes that share the socket. [1]")] = None,
    model: Annotated[str | None, typer.Option(help="A version, an alias or `latest`. [latest]")] = None,
    runtime: Annotated[
        Runtime | None,
        typer.Option(help="`onnx` converts the model, checks the conversion, and runs it with ONNX Runtime. [native]"),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="Reload when the code changes or there is a new version.")
    ] = False,
    grace: Annotated[
        float | None, typer.Option(min=0, help="On SIGTERM, seconds to keep serving while /readyz fails. [0]")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Serve a bundle, as in the image. `mlapp build --bundle-only` writes one.")
    ] = None,
    environment: Environment = None,
) -> None:
    """Serve a model over HTTP.

    For all other settings, use the `serve:` section of mlapp.yaml or variables such as MLAPP_SERVE__MAX_BATCH.

    Examples:

      mlapp serve

      mlapp serve --model production --port 80 --workers 4

      mlapp serve --runtime onnx

      mlapp serve digits/app.py iris/app.py

      mlapp serve --bundle .mlapp/bundles/digits-3-8c1f29d0a7b4
    """
    release_stdout()  # for the access log
    start_server(
        apps=apps or (),
        host=host,
        port=port,
        grpc_port=grpc_port,
        workers=workers,
        model=model,
        runtime=runtime.value if runtime else None,
        reload=reload,
        grace=grace,
        bundle=bundle,
        environment=environment,
    )
