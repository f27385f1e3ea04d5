"""Runs an application on uvicorn, with a graceful shutdown."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvicorn

from mlapp.config import Serve
from mlapp.errors import ConfigError
from mlapp.serving.application import Application
from mlapp.serving.fast_path import internals
from mlapp.serving.web.tls_files import TlsFiles

log = logging.getLogger("mlapp.serving")

SWITCH_INTERVAL = 0.001
"""Seconds after which a computing thread yields the interpreter's lock to the event loop, instead of Python's 0.005:
each callback of uvloop needs the lock. A shorter time costs CPU while threads decode large bodies."""
KEEP_ALIVE = 75
"""Seconds that an idle connection stays open: longer than the idle timeout of most load balancers (60)."""


def run_server(
    application: Application,
    listener: socket.socket,
    settings: Serve,
    ready: Callable[[], None],
    *,
    parent: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish pending requests.

    Args:
        ready: called when connections are accepted.
        parent: a file descriptor that reaches its end when the parent exits. Then the server stops.

    Raises:
        ModelError, UserCodeError: a model cannot predict its own example. ConfigError: a TLS file cannot be used.
    """
    _raise_server_file_limit()
    config = configure_uvicorn(application, settings)
    try:
        config.load()
    except OSError as error:
        raise ConfigError(
            f"The TLS files cannot be used: {error}", "Check serve.tls_cert and serve.tls_key in mlapp.yaml."
        ) from None
    server = Server(config, application, settings.grace, ready)
    _run_server_loop(server.serve_models(listener, parent))


def configure_uvicorn(application: Application, settings: Serve) -> uvicorn.Config:
    """uvicorn's options."""
    return uvicorn.Config(
        application,
        http=choose_server_protocol(application, settings),
        ws="auto" if application.has_api else "none",
        lifespan="on" if application.has_api else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.drain),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def choose_server_protocol(application: Application, settings: Serve) -> Any:
    """The HTTP protocol: mlapp's own; uvicorn's with h11 if configured, or if mlapp does not support this uvicorn."""
    if not settings.fast:
        return "h11"
    missing = internals.find_missing_internals()
    if missing:
        log.warning(
            "uvicorn %s lacks %s, so uvicorn's slower HTTP protocol is used. mlapp supports uvicorn %s.",
            uvicorn.__version__,
            ", ".join(missing),
            internals.SUPPORTED_UVICORN,
        )
        return "h11"
    from mlapp.serving.fast_path.protocol import make_protocol

    return make_protocol(application)


REPEAT_WINDOW = 1.0
"""Seconds within which signals to a worker count as one: a terminal signals every process, and so does the parent."""


class Server(uvicorn.Server):
    """uvicorn's server with our shutdown: SIGTERM first makes /readyz fail, then closes the socket."""

    def __init__(
        self, config: uvicorn.Config, application: Application, grace: float, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._application = application
        self._grace = grace
        self._ready = ready
        self._stop_time: float | None = None
        self._close_time = math.inf
        self._repeat_window = 0.0

    async def serve_models(self, listener: socket.socket, parent: int | None) -> None:
        """Warm the models, serve, and clean up."""
        await self._application.start_models()
        for endpoint in self._application.endpoints:
            endpoint.current.predictor.framework.prepare_server()
        if parent is not None:
            self._repeat_window = REPEAT_WINDOW
            asyncio.get_running_loop().add_reader(parent, self._follow_parent, parent)
        # Loaded objects are permanent, so the garbage collector can skip them. A full collection of them would take
        # half as long as `import pandas`, and free next to nothing.
        gc.collect(1)
        gc.freeze()
        sys.setswitchinterval(SWITCH_INTERVAL)
        watching = self._watch_certificate()
        await self.serve(sockets=[listener])
        if watching is not None:
            watching.cancel()
        await self._application.close_models()

    def _watch_certificate(self) -> asyncio.Task[None] | None:
        config = self.config
        if config.ssl is None or config.ssl_certfile is None or config.ssl_keyfile is None:
            return None
        files = TlsFiles(config.ssl, str(config.ssl_certfile), str(config.ssl_keyfile))
        return asyncio.get_running_loop().create_task(files.watch_changes())

    def _follow_parent(self, parent: int) -> None:
        asyncio.get_running_loop().remove_reader(parent)
        self.handle_exit(signal.SIGTERM, None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start the shutdown; a second signal ends the wait. Unlike uvicorn, exit with status 0."""
        self._application.stopping = True
        now = time.monotonic()
        if self._stop_time is None:
            self._stop_time, self._close_time = now, now + (self._grace if sig == signal.SIGTERM else 0)
        elif now - self._stop_time >= self._repeat_window:
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._close_time:
            self.should_exit = True
        return await super().on_tick(counter)


def _run_server_loop(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _raise_server_file_limit() -> None:
    """Raise the limit of open connections to the system's maximum."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
