"""Creates the recorder of a server's model from `monitor:` in mlapp.yaml."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from mlapp.config import Monitor
from mlapp.errors import ConfigError, MissingExtraError, MlappError
from mlapp.monitoring.metrics import MonitorMetrics
from mlapp.monitoring.place import Place, open_place
from mlapp.monitoring.recorder import Recorder
from mlapp.monitoring.segments import require_pyarrow
from mlapp.store import Store

log = logging.getLogger("mlapp.monitoring")


def open_recording_place(settings: Monitor, store: Store, root: Path, app: str) -> Place | None:
    """The place for counts and log; None, with a warning, if it cannot be opened. The server answers anyway.

    Raises:
        ConfigError: `monitor.url` cannot be a place.
    """
    try:
        return open_place(settings, store, root, app)
    except ConfigError:
        raise
    except MlappError as error:
        log.warning("%s: predictions are only counted in memory: %s %s", app, error.what, error.todo)
        return None


def make_recorder(
    app: str, settings: Monitor, place: Place | None, registry: CollectorRegistry, new_id: Callable[[], bytes]
) -> Recorder | None:
    """The recorder, not started; None if nothing is recorded.

    Args:
        place: where counts and log are written; None keeps counts in memory.
        registry: of the server's metrics.
        new_id: makes an id for a request that has none.
    """
    if settings.logs != "off":
        try:
            require_pyarrow("The prediction log (monitor.log)")
        except MissingExtraError as error:
            log.warning("%s: predictions are not logged. %s %s", app, error.what, error.todo)
            settings = msgspec.structs.replace(settings, log="off")
    if settings.tests is None and settings.logs == "off":
        return None
    return Recorder(app, settings, place, MonitorMetrics(registry, app), new_id)
