"""The schedule of `mlapp monitor run` on a target, and the ports that its pods connect to."""

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


def keeps_monitoring_in_pods(settings: Settings) -> bool:
    """Whether servers in a cluster write monitoring data into their own filesystem, and lose it when they end."""
    monitor = settings.monitor
    is_on = monitor.tests is not None or monitor.logs != "off"
    return is_on and monitor.url is None and not has_monitoring_bucket(settings)


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
    """The ports of the webhooks, in increasing order."""
    return tuple(sorted({find_url_port(alert.webhook) for alert in settings.monitor.alerts}))


def find_url_port(url: str) -> int:
    """The port of an http or https URL: its own or its scheme's; 443 if an environment variable contains it."""
    address = urlsplit(url)
    try:
        port = address.port
    except ValueError:  # such as http://host:${PORT}
        port = None
    return port or DEFAULT_PORTS.get(address.scheme, 443)
