"""Deletes data that exceed `monitor.keep` in age or `monitor.max_size` in size."""

from __future__ import annotations

from datetime import datetime, timezone

from mlapp.config import Monitor
from mlapp.monitoring.place import DAY, HOUR, Place, Window, parse_bytes, parse_seconds


def remove_expired_files(place: Place, settings: Monitor, now: float) -> None:
    """Delete data that are too old, and the oldest hours of a log that is too large."""
    oldest = now - parse_seconds(settings.keep)
    for version in place.names("counts"):
        for name in place.names("counts", version):
            window = Window.parse(name)
            if window is not None and window.until < oldest:
                place.storage.delete_prefix(place.key("counts", version, name))
    for kind in ("windows", "runs"):
        for name in place.names(kind):
            window = Window.parse(name)
            if window is not None and window.until < oldest:
                place.storage.delete_prefix(place.key(kind, name))
    for version in place.names("log"):
        for hour in place.names("log", version):
            if _parse_log_hour(hour, "%Y-%m-%dT%H") + HOUR < oldest:
                place.storage.delete_prefix(place.key("log", version, hour))
    for day in place.names("truth"):
        if _parse_log_hour(day, "%Y-%m-%d") + DAY < oldest:
            place.storage.delete_prefix(place.key("truth", day))
    _delete_oldest_hours(place, parse_bytes(settings.max_size))


def _delete_oldest_hours(place: Place, max_bytes: int) -> None:
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


def _parse_log_hour(name: str, form: str) -> float:
    try:
        return datetime.strptime(name, form).replace(tzinfo=timezone.utc).timestamp()
    except ValueError:  # not a file of ours
        return float("inf")
