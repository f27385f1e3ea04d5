"""Monitoring in the server: a recorder for each model, and the routes of the truth and of the live report."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import msgspec

from mlapp.errors import MissingExtraError, MlappError, StoreError
from mlapp.monitoring.alarms import judge_windows
from mlapp.monitoring.counts import Counts
from mlapp.monitoring.history import read_counts
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place, open_place, seconds_of
from mlapp.monitoring.recorder import Recorder
from mlapp.monitoring.report import MOST_WINDOWS, render_live
from mlapp.monitoring.rules import Rules
from mlapp.monitoring.segments import require_pyarrow
from mlapp.monitoring.truth import Truths
from mlapp.project import Project
from mlapp.serving.application import Application
from mlapp.serving.decoding.json_body import decode_json, encode_json
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.inference.request_features import receive_body
from mlapp.serving.web.http import Request, Response
from mlapp.serving.web.problems import HttpError
from mlapp.serving.web.request_id import new_request_id

log = logging.getLogger("mlapp.serving")
HTML = b"text/html; charset=utf-8"
POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
FRESH = 2.0
"""Seconds for which the live report is kept: reading the counts of all replicas takes a while."""
GRACE = 4.0
"""Seconds after a window's end in which the other replicas write their last counts."""


def add(application: Application, endpoint: Endpoint, project: Project, bundle: str | None = None) -> None:
    """Record the predictions of an endpoint, as `monitor:` in the project's mlapp.yaml says.

    Args:
        bundle: the folder of the bundle that is served, if it is one.
    """
    settings = project.settings.monitor
    if settings.logs != "off":
        try:
            require_pyarrow("The prediction log (monitor.log)")
        except MissingExtraError as error:
            log.warning("%s: predictions are not logged. %s %s", endpoint.name, error.what, error.todo)
            settings = msgspec.structs.replace(settings, log="off")
    place = _place(project, endpoint.name)
    _add_feedback(application, endpoint, place, Rules(settings.columns, endpoint.name))
    if settings.tests is None and settings.logs == "off":
        return
    metrics = MonitorMetrics(application.metrics.registry, endpoint.name)
    recorder = Recorder(endpoint.name, settings, place, metrics, new_request_id)
    endpoint.record_with(recorder)
    if place is not None and settings.run:
        recorder.on_close = _Closer(project, place, bundle).close_soon
    _add_page(application, endpoint, place, recorder)

    async def start() -> None:
        recorder.start()

    async def stop() -> None:
        await asyncio.to_thread(recorder.stop)

    application.on_start.append(start)
    application.on_close.append(stop)


def _place(project: Project, app: str) -> Place | None:
    """Where counts and log go; None, with a warning, where they cannot be kept. The server answers all the same."""
    try:
        return open_place(project.settings.monitor, project.store, project.root, app)
    except MlappError as error:
        log.warning("%s: predictions are only counted in memory: %s %s", app, error.what, error.todo)
        return None


def _add_feedback(application: Application, endpoint: Endpoint, place: Place | None, rules: Rules) -> None:
    """`POST /feedback`. It is answered once the truths are kept."""

    async def feedback(request: Request) -> Response:
        if place is None:
            raise HttpError(503, "This server has no place to keep truths: set monitor.url.")
        body, budget = await receive_body(endpoint, request)
        baseline = endpoint.current.baseline
        truths = Truths(place, rules, None if baseline is None else baseline.target)
        checked = await endpoint.decode_body(
            lambda: truths.check(decode_json(body)), len(body), budget, request.wait_until_left
        )
        try:
            accepted = await asyncio.to_thread(truths.write, checked)
        except (StoreError, MissingExtraError) as error:
            log.error("%s: truths were not kept: %s", endpoint.name, error.what)
            raise HttpError(503, "The truths cannot be kept now. Send them again.") from None
        return Response(encode_json({"accepted": accepted}))

    application.add_route("POST", f"{endpoint.prefix}/feedback", feedback)


def _add_page(application: Application, endpoint: Endpoint, place: Place | None, recorder: Recorder) -> None:
    """`GET /monitor`: the live report, of all replicas where they share a place, else of this one."""
    kept: tuple[float, bytes] = (0.0, b"")

    async def show(request: Request) -> Response:
        nonlocal kept
        if time.monotonic() - kept[0] > FRESH:
            kept = (time.monotonic(), await asyncio.to_thread(_render, endpoint.name, place, recorder))
        return Response(kept[1], HTML, headers=[(b"content-security-policy", POLICY)])

    application.add_route("GET", f"{endpoint.prefix}/monitor", show)


def _render(app: str, place: Place | None, recorder: Recorder) -> bytes:
    now = time.time()
    counts: Sequence[Counts] = recorder.current()
    if place is not None:
        seconds = seconds_of(recorder.settings.window)
        try:
            counts = read_counts(place, since=now - MOST_WINDOWS * seconds, until=now + seconds) or counts
        except StoreError as error:
            log.warning("%s: the live report shows this replica alone: %s", app, error.what)
    baselines = recorder.baselines()
    reports = judge_windows(counts, baselines, recorder.settings, now=now)
    return render_live(app, reports, counts, baselines).encode()


class _Closer:
    """Runs `mlapp monitor run` as a child process when a window is over; on Kubernetes a CronJob does (`monitor.run`).

    Of several replicas that share a place, one does it for each window. At most one child runs at a time.
    """

    def __init__(self, project: Project, place: Place, bundle: str | None) -> None:
        self._place = place
        self._root = project.root
        self._command = [sys.executable, "-m", "mlapp", "monitor", "run"]
        self._environment = (
            {**os.environ, "MLAPP_APP": str(project.location.file)} if bundle is None else {**os.environ}
        )
        self._environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        if bundle is not None:
            self._command += ["--bundle", bundle]
        if project.environment is not None:
            self._command += ["--env", project.environment]
        self._lock = threading.Lock()
        self._is_due = False

    def close_soon(self, window: str) -> None:
        """A window is over. Called in the recorder's thread."""
        with self._lock:
            if self._is_due:
                return
            self._is_due = True
        threading.Thread(target=self._run, args=(window,), name="monitor-run", daemon=True).start()

    def _run(self, window: str) -> None:
        time.sleep(GRACE)
        with self._lock:
            self._is_due = False
        try:
            key = self._place.key("runs", window)
            if not self._place.storage.create_key(key, os.urandom(16)):
                return
            with self._running:
                found = subprocess.run(  # noqa: S603
                    self._command, cwd=self._root, env=self._environment, capture_output=True, text=True, check=False
                )
            if found.returncode:
                log.warning("mlapp monitor run failed: %s", found.stderr.strip()[-500:])
        except (OSError, MlappError) as error:
            log.warning("mlapp monitor run could not be started: %s", error)

    _running = threading.Lock()
