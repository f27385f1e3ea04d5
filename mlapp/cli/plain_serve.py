"""`mlapp serve` without typer and the other commands, whose import takes a quarter of the server's own start.

Only complete and valid arguments are read here. typer reads all others, and explains what is wrong.
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
    """The arguments of `start_server` in those of the command line, or None if typer must read them."""
    if arguments[:1] != ["serve"] or "_MLAPP_COMPLETE" in os.environ:
        return None
    found: dict[str, Any] = {}
    apps = []
    rest = iter(arguments[1:])
    for argument in rest:
        if not argument.startswith("-"):
            apps.append(argument)
            continue
        flag, is_joined, text = argument.partition("=")
        name, read = OPTIONS.get(flag, ("", None))
        if not name or name in found:
            return None
        if read is None:
            value: Any = None if is_joined else True
        else:
            given = text if is_joined else next(rest, "")
            value = None if not given or given.startswith("-") else read(given)
        if value is None:
            return None
        found[name] = value
    return {"apps": apps, **found}


def _read_port(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= 65535 else None


def _read_plain_serve_count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,8}", text) else None


def _read_plain_serve_seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) else None


def _read_plain_serve_runtime(text: str) -> str | None:
    return text if text in RUNTIMES else None


OPTIONS: dict[str, tuple[str, Callable[[str], Any] | None]] = {
    "--host": ("host", str),
    "--port": ("port", _read_port),
    "--grpc-port": ("grpc_port", _read_port),
    "--workers": ("workers", _read_plain_serve_count),
    "--model": ("model", str),
    "--runtime": ("runtime", _read_plain_serve_runtime),
    "--reload": ("reload", None),
    "--grace": ("grace", _read_plain_serve_seconds),
    "--bundle": ("bundle", Path),
    "--env": ("environment", str),
}
"""Each option's argument of `start_server`, and the reader of its value, which returns None for a wrong one; no reader
for a switch."""


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

    from mlapp.serving import serve_spec as plans
    from mlapp.serving.process import sockets

    what: dict[str, Any] = {
        "apps": tuple(apps),
        "bundle": str(bundle) if bundle else None,
        "environment": environment,
    }
    found = plans.find_served_projects(**what)
    settings = plans.read_serve_settings(found, environment)
    given: dict[str, Any] = {
        "host": host or settings.host or sockets.choose_default_socket_host(),
        "port": sockets.choose_socket_port(settings, os.environ) if port is None else port,
    }
    flags = {"grpc_port": grpc_port, "workers": workers, "model": model, "grace": grace, "runtime": runtime}
    given |= {name: value for name, value in flags.items() if value is not None}
    if reload:
        given |= {"workers": 1, "refresh": 1.0}
    settings = msgspec.structs.replace(settings, **given)
    plan = plans.ServeSpec(**what, settings=settings, flags=given, reload=reload)
    if settings.wsgi is not None:
        from mlapp.serving.process.wsgi_site import run_wsgi_site

        run_wsgi_site(settings.wsgi, plan, found[0])
    listener = sockets.bind_socket(given["host"], settings.port)
    url = sockets.server_url(listener, settings.tls_cert is not None)
    if settings.workers > 1 or reload:
        from mlapp.serving.process.supervisor import Supervisor

        watched = [project.root for project in found] if reload else []
        Supervisor(plan, listener, lambda line: output.print_note(line.replace("{url}", url)), watched).run_workers()
    else:
        from mlapp.serving.process.launch import launch_server

        launch_server(plan, listener, lambda lines: output.print_note("\n".join(lines).replace("{url}", url)))
