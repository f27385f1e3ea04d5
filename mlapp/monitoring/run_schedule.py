"""What a target must provide for `mlapp monitor run`: its schedule, and the connections of its pods."""

from __future__ import annotations

from urllib.parse import urlsplit

from mlapp.config import Settings
from mlapp.monitoring.place import parse_seconds

DEFAULT_PORTS = {"http": 80, "https": 443}


def has_monitoring_bucket(settings: Settings) -> bool:
    """Whether servers write monitoring data, and write it to an object store."""
    monitor = settings.monitor
    place = monitor.url or settings.store.url
    is_remote = "://" in place and not place.startswith("file://")
    return is_remote and (monitor.tests is not None or monitor.logs != "off")


def make_cron(settings: Settings) -> str | None:
    """A cron expression: once per window, at most every minute; None if there is nothing to monitor."""
    if not has_monitoring_bucket(settings):
        return None
    minutes = max(1, parse_seconds(settings.monitor.window) // 60)
    if minutes < 60:
        return f"*/{minutes} * * * *" if minutes > 1 else "* * * * *"
    hours = min(minutes // 60, 24)
    return "2 * * * *" if hours == 1 else "2 0 * * *" if hours == 24 else f"2 */{hours} * * *"


def list_alert_ports(settings: Settings) -> tuple[int, ...]:
    """The ports of the webhooks, in increasing order; 443 for a URL that only the environment knows."""
    return tuple(sorted({find_url_port(alert.webhook) for alert in settings.monitor.alerts}))


def find_url_port(url: str) -> int:
    """The port of an http or https URL; the scheme's, or 443, if it names none or the environment names it."""
    address = urlsplit(url)
    try:
        port = address.port
    except ValueError:  # such as http://host:${PORT}
        port = None
    return port or DEFAULT_PORTS.get(address.scheme, 443)
