"""How often `mlapp monitor run` is due if no server runs it: the schedule of a CronJob, or of Flyte."""

from __future__ import annotations

from mlapp.config import Settings
from mlapp.monitoring.place import parse_seconds


def make_cron(settings: Settings) -> str | None:
    """A cron expression: once per window, at most every minute; None if there is nothing to monitor."""
    monitor = settings.monitor
    place = monitor.url or settings.store.url
    if "://" not in place or place.startswith("file://") or (monitor.tests is None and monitor.logs == "off"):
        return None
    minutes = max(1, parse_seconds(monitor.window) // 60)
    if minutes < 60:
        return f"*/{minutes} * * * *" if minutes > 1 else "* * * * *"
    hours = min(minutes // 60, 24)
    return "2 * * * *" if hours == 1 else "2 0 * * *" if hours == 24 else f"2 */{hours} * * *"
