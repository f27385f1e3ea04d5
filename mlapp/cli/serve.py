"""`mlapp serve`"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mlapp.cli import output
from mlapp.cli.options import Environment


def serve(
    apps: Annotated[
        list[str] | None,
        typer.Argument(help="Files of apps, as digits/app.py:app; several are served each under its name."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address; 127.0.0.1, or 0.0.0.0 in a container.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 picks a free one. [8000, or $PORT]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A version, an alias or `latest`.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Serve a bundle, as the image does; `mlapp build --bundle-only` makes one.")
    ] = None,
    environment: Environment = None,
) -> None:
    """Serve a model over HTTP.

    Examples:

      mlapp serve

      mlapp serve --model production --port 80

      mlapp serve digits/app.py iris/app.py

      mlapp serve --bundle .mlapp/bundles/digits-3-8c1f29d0a7b4
    """
    import msgspec

    from mlapp.bundle import open as open_bundle
    from mlapp.serving import launch, sockets

    found = [open_bundle(bundle).project] if bundle else launch.projects(apps or [], environment)
    settings = launch.serve_settings(found, environment)
    settings = msgspec.structs.replace(
        settings,
        host=host or settings.host or sockets.default_host(),
        port=sockets.port(settings, os.environ) if port is None else port,
        model=model or settings.model,
    )
    assert settings.host is not None
    listener = sockets.bind(settings.host, settings.port)
    application = launch.application(found, settings)

    def ready() -> None:
        url = sockets.url(listener, settings.tls_cert is not None)
        for endpoint in application.endpoints:
            for difference in endpoint.current.differences():
                output.note(f"Warning: {endpoint.name}: {difference}")
            output.note(f"{endpoint.name} version {endpoint.current.version} answers at {url}{endpoint.prefix}/")

    from mlapp.serving.server import run

    run(application, listener, settings, ready)
