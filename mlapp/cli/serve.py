"""`mlapp serve`"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment


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
        float | None, typer.Option(min=0, help="Seconds between a failing /readyz and the end, on SIGTERM. [0]")
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
    import msgspec

    from mlapp.serving import serve_spec as plans
    from mlapp.serving.process import sockets

    what: dict[str, Any] = {
        "apps": tuple(apps or ()),
        "bundle": str(bundle) if bundle else None,
        "environment": environment,
    }
    found = plans.find_projects(**what)
    settings = plans.read_serve_settings(found, environment)
    given: dict[str, Any] = {
        "host": host or settings.host or sockets.choose_default_host(),
        "port": sockets.choose_port(settings, os.environ) if port is None else port,
    }
    flags: dict[str, Any] = {"grpc_port": grpc_port, "workers": workers, "model": model, "grace": grace}
    flags["runtime"] = runtime.value if runtime else None
    given |= {name: value for name, value in flags.items() if value is not None}
    if reload:
        given |= {"workers": 1, "refresh": 1.0}
    settings = msgspec.structs.replace(settings, **given)
    plan = plans.ServeSpec(**what, settings=settings, flags=given, reload=reload)
    if settings.wsgi is not None:
        from mlapp.serving.process.wsgi_site import run_site

        run_site(settings.wsgi, plan, found[0])
    listener = sockets.bind_socket(given["host"], settings.port)
    url = sockets.server_url(listener, settings.tls_cert is not None)
    if settings.workers > 1 or reload:
        from mlapp.serving.process.supervisor import Supervisor

        watched = [project.root for project in found] if reload else []
        Supervisor(plan, listener, lambda line: output.print_note(line.replace("{url}", url)), watched).run_workers()
    else:
        from mlapp.serving.process.launch import launch_server

        launch_server(plan, listener, lambda lines: output.print_note("\n".join(lines).replace("{url}", url)))
