"""`mlapp serve` without typer and the other commands, whose import takes a quarter of the server's own start.

Parses only complete and valid arguments. typer parses all others and explains errors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlapp.cli import output

RUNTIMES = ("native", "onnx")


def parse_plain_serve_arguments(arguments: Sequence[str]) -> dict[str, Any] | None:
    """Parse a command line to the arguments of `start_server`; None if typer must parse it."""
    if arguments[:1] != ["serve"] or "_MLAPP_COMPLETE" in os.environ:
        return None
    options: dict[str, Any] = {}
    apps = []
    remaining = iter(arguments[1:])
    for argument in remaining:
        if not argument.startswith("-"):
            apps.append(argument)
            continue
        flag, is_joined, text = argument.partition("=")
        name, parse_value = OPTIONS.get(flag, ("", None))
        if not name or name in options:
            return None
        if parse_value is None:
            value: Any = None if is_joined else True
        else:
            value_text = text if is_joined else next(remaining, "")
            value = None if not value_text or value_text.startswith("-") else parse_value(value_text)
        if value is None:
            return None
        options[name] = value
    return {"apps": apps, **options}


def _parse_plain_serve_port(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535 else None


def _parse_plain_serve_count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else None


def _parse_plain_serve_seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None


def _parse_plain_serve_runtime(text: str) -> str | None:
    return text if text in RUNTIMES else None


OPTIONS: dict[str, tuple[str, Callable[[str], Any] | None]] = {
    "--host": ("host", str),
    "--port": ("port", _parse_plain_serve_port),
    "--grpc-port": ("grpc_port", _parse_plain_serve_port),
    "--workers": ("workers", _parse_plain_serve_count),
    "--model": ("model", str),
    "--runtime": ("runtime", _parse_plain_serve_runtime),
    "--reload": ("reload", None),
    "--grace": ("grace", _parse_plain_serve_seconds),
    "--bundle": ("bundle", Path),
    "--env": ("environment", str),
}
"""By option: the argument of `start_server`, and a function that parses the value, or returns None if it is invalid.
A switch has no function."""


def start_server(
    apps: Sequence[str] = (),
    host: str | None = None,
    port: int | None = None,
    grpc_port: int | None = None,
    workers: int | None = None,
    model: str | None = None,
    runtime: str | None = None,
    grace: float | None = None,
    bundle: Path | None = None,
    environment: str | None = None,
    *,
    reload: bool = False,
) -> None:
    """Serve apps until SIGTERM or SIGINT. The arguments are those of `mlapp serve`.

    Raises:
        MlappError: an app cannot be imported, a model cannot be loaded, or the port is in use.
    """
    import msgspec

    from mlapp.serving import serve_spec as serve_specs
    from mlapp.serving.process import sockets

    app_selection: dict[str, Any] = {
        "apps": tuple(apps),
        "bundle": str(bundle) if bundle else None,
        "environment": environment,
    }
    projects = serve_specs.find_served_projects(**app_selection)
    settings = serve_specs.read_serve_settings(projects, environment)
    overrides: dict[str, Any] = {
        "host": host or settings.host or sockets.choose_default_socket_host(),
        "port": sockets.choose_socket_port(settings, os.environ) if port is None else port,
    }
    flags = {"grpc_port": grpc_port, "workers": workers, "model": model, "grace": grace, "runtime": runtime}
    overrides |= {name: value for name, value in flags.items() if value is not None}
    if reload:
        overrides |= {"workers": 1, "refresh": 1.0}
    settings = msgspec.structs.replace(settings, **overrides)
    spec = serve_specs.ServeSpec(**app_selection, settings=settings, flags=overrides, reload=reload)
    if settings.wsgi is not None:
        from mlapp.serving.process.wsgi_site import run_wsgi_site

        run_wsgi_site(settings.wsgi, spec, projects[0])
    listener = sockets.bind_socket(overrides["host"], settings.port)
    url = sockets.server_url(listener, settings.tls_cert is not None)
    if settings.workers > 1 or reload:
        from mlapp.serving.process.supervisor import Supervisor

        watched = [project.root for project in projects] if reload else []
        Supervisor(spec, listener, lambda line: output.print_note(line.replace("{url}", url)), watched).run_workers()
    else:
        from mlapp.serving.process.launch import launch_server

        launch_server(spec, listener, lambda lines: output.print_note("\n".join(lines).replace("{url}", url)))
