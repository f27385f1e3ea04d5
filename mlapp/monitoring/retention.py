"""Deletes data that exceed `monitor.keep` in age or `monitor.max_size` in size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timezone

from mlapp.config import Monitor
from mlapp.monitoring.place import DAY, HOUR, Place, Window, parse_bytes, parse_seconds


def remove_expired_files(place: Place, settings: Monitor, now: float) -> None:
    """Delete data that are too old, and the oldest hours of a log that is too large."""
    oldest = now - parse_seconds(settings.keep)
    for folder, end in _iterate_dated_folders(place):
        if end < oldest:
            place.storage.delete_prefix(place.key(*folder))
    _delete_oldest_hours(place, parse_bytes(settings.max_size))


def _iterate_dated_folders(place: Place) -> Iterator[tuple[tuple[str, ...], float]]:
    """Each folder that is named by a time, relative to the place, and the end of that time in seconds since 1970."""
    for version in place.names("counts"):
        for name in place.names("counts", version):
            yield ("counts", version, name), _parse_window_end(name)
    for kind in ("windows", "runs"):
        for name in place.names(kind):
            yield (kind, name), _parse_window_end(name)
    for version in place.names("log"):
        for hour in place.names("log", version):
            yield ("log", version, hour), _parse_start(hour, "%Y-%m-%dT%H") + HOUR
    for day in place.names("truth"):
        yield ("truth", day), _parse_start(day, "%Y-%m-%d") + DAY


def _parse_window_end(name: str) -> float:
    window = Window.parse(name)
    return math.inf if window is None else window.until  # not a file of ours


def _delete_oldest_hours(place: Place, max_bytes: int) -> None:
    if place.storage.measure_prefix(place.key("log")) <= max_bytes:  # one listing, instead of one for each hour
        return
    hours = sorted((hour, version) for version in place.names("log") for hour in place.names("log", version))
    sizes = [_measure_log_hour(place, version, hour) for hour, version in hours]
    total = sum(sizes)
    for (hour, version), size in zip(hours, sizes, strict=True):
        if total <= max_bytes:
            return
        place.storage.delete_prefix(place.key("log", version, hour))
        total -= size


def _measure_log_hour(place: Place, version: str, hour: str) -> int:
    return place.storage.measure_prefix(place.key("log", version, hour))


def _parse_start(name: str, form: str) -> float:
    try:
        return datetime.strptime(name, form).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:  # not a file of ours
        return math.inf
