"""Monitoring in a server process: runs `mlapp monitor run` as a child process when a window ends."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

from mlapp.config import Monitor
from mlapp.errors import MlappError
from mlapp.monitoring.place import Place
from mlapp.monitoring.recording import open_recording_place
from mlapp.project import Project
from mlapp.serving.application import Application
from mlapp.serving.inference.endpoint import Endpoint
from mlapp.serving.monitoring import monitor_endpoint

log = logging.getLogger("mlapp.serving")
LEVELS = {"INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}
"""Levels of the command's log lines, which begin with the level and a colon."""
GRACE = 4.0
"""Seconds to wait after a window's end, in which the other replicas write their last counts."""
PATIENCE = 60.0
"""Seconds after which a run starts beside one that has not ended."""
MAX_RUNS = 2
"""Maximum concurrent runs: one that trains, and one that closes windows. Each takes as much memory as a server."""
LONGEST = 6 * 3600.0
"""Seconds after which a run is killed, as for the CronJob on Kubernetes."""
RETRY = 60.0
"""Seconds between two runs while a webhook cannot be reached."""


def monitor_served_endpoint(
    application: Application, endpoint: Endpoint, project: Project, bundle: str | None = None
) -> None:
    """Record the predictions of an endpoint as configured by `monitor:` in the project's mlapp.yaml.

    Args:
        bundle: the folder of the served bundle, if any.
    """
    settings = project.settings.monitor
    _warn_of_unknown_monitored_names(settings, endpoint)
    place = open_recording_place(settings, project.store, project.root, endpoint.name)
    recorder = monitor_endpoint(application, endpoint, settings, place)
    if recorder is not None and place is not None and settings.run is True:
        closer = _Closer(project, place, bundle)
        recorder.on_close(closer.close_soon)
        application.on_start.append(closer.start_delivering)


def _warn_of_unknown_monitored_names(settings: Monitor, endpoint: Endpoint) -> None:
    """Warn about names in `monitor:` that the model does not have. The server runs anyway."""
    if not (settings.columns or settings.segments or settings.quality or settings.retrain or settings.promote):
        return
    from mlapp.training.monitored_names import (  # lazy: loads all of training
        find_idle_monitored_settings,
        find_unknown_monitored_columns,
        find_unknown_monitored_metrics,
    )

    model = endpoint.current
    errors = find_unknown_monitored_columns(settings, model.predictor.schema.features)
    if model.manifest is not None:
        errors += find_unknown_monitored_metrics(settings, model.manifest.headline)
    errors += find_idle_monitored_settings(settings)
    for error in errors:
        log.warning("%s: %s %s", endpoint.name, error.what, error.todo)


class _Closer:
    """Runs `mlapp monitor run` as a child process when a window ends, unless a CronJob does it (`monitor.run`).

    If several replicas share a place, one of them does it for each window. A run waits for the previous one, at most
    `PATIENCE` seconds.
    """

    def __init__(self, project: Project, place: Place, bundle: str | None) -> None:
        self._place = place
        self._alerts = project.settings.monitor.alerts
        self._root = project.root
        self._command = [sys.executable, "-m", "mlapp", "monitor", "run"]
        self._environment = {**os.environ, "MLAPP_APP": project.location.address} if bundle is None else {**os.environ}
        self._environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        if bundle is not None:
            self._command += ["--bundle", bundle]
        if project.environment is not None:
            self._command += ["--env", project.environment]
        self._lock = threading.Lock()
        self._is_due = False

    def close_soon(self, window: str) -> None:
        """Close a window that has ended. Called in the recorder's thread."""
        with self._lock:
            if self._is_due:
                return
            self._is_due = True
        threading.Thread(target=self._close_window, args=(window,), name="monitor-run", daemon=True).start()

    async def start_delivering(self) -> None:
        """Send the messages that an earlier server could not send: without predictions, no window ends here."""
        if self._alerts:
            threading.Thread(target=self._deliver_in_thread, name="monitor-run", daemon=True).start()

    def _deliver_in_thread(self) -> None:
        try:
            self._run_until_delivered()
        except (OSError, MlappError) as error:
            log.warning("Pending messages about alarms are not sent: %s", _describe_error(error))

    def _close_window(self, window: str) -> None:
        time.sleep(GRACE)
        with self._lock:
            self._is_due = False
        try:
            key = self._place.key("runs", window)
            if not self._place.storage.create_key(key, os.urandom(16)):
                return
            self._run_monitor()
            self._run_until_delivered()
        except (OSError, MlappError) as error:
            log.warning("mlapp monitor run could not be started: %s", _describe_error(error))

    def _run_monitor(self) -> None:
        if not self._waiting.acquire(blocking=False):
            return  # a run that already waits closes this window too
        try:
            # A run that trains takes hours: the alarms of later windows must not wait for it.
            is_alone = self._running.acquire(timeout=PATIENCE)
            self._slots.acquire()
        finally:
            self._waiting.release()
        try:
            completed = subprocess.run(  # noqa: S603
                self._command,
                cwd=self._root,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            log.warning("mlapp monitor run was killed: it took more than %d hours", LONGEST // 3600)
            return
        finally:
            self._slots.release()
            if is_alone:
                self._running.release()
        if completed.returncode:
            log.warning("mlapp monitor run failed: %s", completed.stderr.strip()[-500:])
            return
        for line in completed.stderr.splitlines():  # such as an unreachable webhook, or a new challenger
            level, _, text = line.partition(": ")
            if level in LEVELS:
                log.log(LEVELS[level], "mlapp monitor run: %s", text)

    def _run_until_delivered(self) -> None:
        """Repeat the run while messages are pending: without further predictions, no window ends."""
        if not self._alerts or not self._retrying.acquire(blocking=False):
            return
        from mlapp.monitoring.deliveries import Deliveries  # lazy: loads urllib's clients

        try:
            while Deliveries(self._place, self._alerts).count_pending():
                time.sleep(RETRY)
                self._run_monitor()
        finally:
            self._retrying.release()

    _running = threading.Lock()
    _waiting = threading.Lock()
    _slots = threading.BoundedSemaphore(MAX_RUNS)
    _retrying = threading.Lock()


def _describe_error(error: Exception) -> str:
    """The error on one line."""
    return f"{error.what} {error.todo}" if isinstance(error, MlappError) else str(error)
